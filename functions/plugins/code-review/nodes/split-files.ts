import type { NodeContext } from "@aau/sdk";
import { Send } from "@langchain/langgraph";
import { breather } from "../breathe.ts";
import { type Batch, BRANCHES, type ChangedFile, type ReadyFile } from "../change.ts";
import { isCode, isScript } from "../diff/file-kind.ts";
import type { ReviewPatch, ReviewState } from "../state.ts";

/** About 10,000 tokens: small enough for a model to keep an eye on every line. */
const BATCH_CHARACTERS = 40_000;
const MAX_BATCHES = 24;
/** Three branches read each batch; a part of the budget is left for answers, repairs and the summary. */
const MODEL_BRANCHES = 3;
const CHARACTERS_PER_TOKEN = 3;
const ANSWER_TOKENS = 1200;
const BUDGET_SHARE = 0.8;

const sizeOf = (file: ChangedFile): number => file.hunks.reduce((sum, hunk) => sum + hunk.rows.reduce((size, row) => size + row.text.length + 8, 0), 0);

/** Nobody writes lines of this length on average; such code is made by tools and slow to lint. */
function isMinified(file: ChangedFile): boolean {
  const rows = file.hunks.reduce((sum, hunk) => sum + hunk.rows.length, 0);
  return isScript(file.language) && sizeOf(file) > 20_000 && sizeOf(file) / rows > 300;
}

/** The top folder, and what kind of file: files that belong together share a batch. */
function groupOf(file: ChangedFile): string {
  const kind = isScript(file.language) ? "scripts" : file.language;
  const [top = "", ...rest] = file.path.split("/");
  return `${kind} ${rest.length > 0 ? top : "."}`;
}

export function intoBatches(files: readonly ReadyFile[], tokenBudget: number): Batch[] {
  const total = files.reduce((sum, file) => sum + sizeOf(file), 0);
  const limit = Math.max(BATCH_CHARACTERS, Math.ceil((total / MAX_BATCHES) * 2));
  const open: { name: string; files: ReadyFile[]; size: number }[] = [];
  // Code before data, sources before tests: where the model's budget ends, the rest matters least.
  const weight = (file: ReadyFile) => (isCode(file.language) ? 0 : 2) + (file.isTest ? 1 : 0);
  for (const file of files.toSorted((a, b) => weight(a) - weight(b))) {
    const name = groupOf(file);
    const size = sizeOf(file);
    const fitting = open.findLast((batch) => batch.size + size <= limit && (batch.name === name || open.length >= MAX_BATCHES || batch.size < limit / 8));
    if (fitting) {
      fitting.files.push(file);
      fitting.size += size;
    } else open.push({ name, files: [file], size });
  }
  let left = tokenBudget * BUDGET_SHARE;
  return open.map((batch) => {
    const isWorth = batch.files.some((file) => isCode(file.language) && !file.isGenerated);
    const cost = (batch.size / CHARACTERS_PER_TOKEN + ANSWER_TOKENS) * MODEL_BRANCHES;
    const isForModel = isWorth && cost <= left;
    if (isForModel) left -= cost;
    return { name: batch.name, files: batch.files, isForModel };
  });
}

/** Masks secrets, rebuilds code that parses, and groups files by kind and folder. */
export async function splitFiles(state: ReviewState, ctx: NodeContext): Promise<ReviewPatch> {
  const [{ maskSecrets }, { rebuildFragments, newAllowance }] = await Promise.all([import("../rules/find-secrets.ts"), import("../rules/rebuild-fragments.ts")]);
  const allowance = newAllowance();
  const breathe = breather(ctx.signal);
  const files: ReadyFile[] = [];
  const unseen: string[] = [];
  for (const raw of state.files) {
    await breathe();
    if (raw.added + raw.removed === 0 || raw.status === "deleted") continue;
    const { file, secrets } = await maskSecrets({ ...raw, isGenerated: raw.isGenerated || isMinified(raw) }, breathe);
    const code = isScript(file.language) && !file.isGenerated ? await rebuildFragments(file, allowance, breathe) : { fragments: [], unseen: 0 };
    if (code.unseen > 0) unseen.push(file.path);
    files.push({ ...file, secrets, fragments: code.fragments });
  }
  const batches = intoBatches(files, ctx.budget.limit);
  const skipped = files.filter((file) => file.isGenerated).length;
  if (skipped > 0) ctx.warn({ code: "GENERATED_FILES", message: `${skipped} generated, minified or vendored files were searched for secrets only.` });
  const beyond = ctx.hasModel ? batches.filter((batch) => !batch.isForModel).flatMap((batch) => batch.files.filter((file) => isCode(file.language) && !file.isGenerated)) : [];
  if (beyond.length > 0)
    ctx.warn({
      code: "TOO_LARGE_FOR_MODEL",
      message: `${beyond.length} files were checked by static rules only: the whole change does not fit into the token budget. Send a smaller change to have all of it read by the model.`,
    });
  ctx.report(`${files.length} files in ${batches.length} batches`);
  // Only the masked rows go on from here.
  return { files: state.files.map((file) => ({ ...file, hunks: [] })), batches, unseen };
}

/** One branch of each kind for each batch, all at once; a change that only deletes has nothing to branch for. */
export function toBranches(state: ReviewState): Send[] | "merge_results" {
  if (state.batches.length === 0) return "merge_results";
  return state.batches.flatMap((batch) => BRANCHES.map((branch) => new Send(branch, { batch })));
}
