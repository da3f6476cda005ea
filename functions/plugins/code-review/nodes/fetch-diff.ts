import { type Attachment, CallerMistake, type NodeContext } from "@aau/sdk";
import type { ChangedFile } from "../change.ts";
import { isCode, languageOf } from "../diff/file-kind.ts";
import { apiBase, fetchPullRequestDiff, findPullRequest, MAX_DIFF_BYTES } from "../diff/github-pull-request.ts";
import { looksLikeDiff, parseUnifiedDiff } from "../diff/parse-unified-diff.ts";
import { wholeFile } from "../diff/whole-file.ts";
import { oneLine } from "../printable.ts";
import { readGithubApiUrl } from "../settings.ts";
import type { ReviewPatch } from "../state.ts";

const NOTHING_TO_REVIEW = "There is nothing to review. Attach a unified diff (git diff > change.diff) or source files, or put the URL of a GitHub pull request into the command.";

interface Read {
  source: string;
  files: ChangedFile[];
  notes: string[];
}

/** @returns the attachment's text; `null` for one that is not text. */
function textOf(attachment: Attachment): string | null {
  if (attachment.content !== undefined) return attachment.content.includes("\u0000") ? null : attachment.content;
  if (attachment.content_base64 === undefined) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(attachment.content_base64, "base64"));
    return text.includes("\u0000") ? null : text;
  } catch {
    return null;
  }
}

function isDiff({ name, media_type }: Attachment, text: string): boolean {
  if (/^text\/x-(?:diff|patch)\b|^application\/x-patch\b/i.test(media_type) || /\.(?:diff|patch)$/i.test(name)) return true;
  // Source code may quote a diff; only files that are no code are judged by their content.
  return !isCode(languageOf(name)) && looksLikeDiff(text);
}

function readAttachment(attachment: Attachment): Read {
  const source = oneLine(attachment.name, 120);
  const text = textOf(attachment);
  if (text === null) return { source, files: [], notes: [`${source} is not text and was not read.`] };
  if (text.trim() === "") return { source, files: [], notes: [`${source} is empty.`] };
  if (Buffer.byteLength(text) > MAX_DIFF_BYTES) throw new CallerMistake(`${source} is larger than 5 MB. Attach the part that should be reviewed.`);
  if (!isDiff(attachment, text)) {
    const { file, notes } = wholeFile(attachment.name, text);
    return { source, files: [file], notes };
  }
  const { files, notes } = parseUnifiedDiff(text);
  if (files.length === 0) notes.push(`${source} holds no unified diff that can be read; make one with git diff.`);
  return { source, files, notes };
}

async function readPullRequest(text: string, ctx: NodeContext): Promise<Read | null> {
  const pull = findPullRequest(text);
  if (!pull) return null;
  const source = `${pull.owner}/${pull.repo}#${pull.number}`;
  ctx.report(`Fetching pull request ${source}`);
  const diff = await fetchPullRequestDiff(pull, { base: apiBase(readGithubApiUrl(ctx.config)), token: ctx.secret("github_token"), fetch: ctx.fetch, signal: ctx.signal });
  return { source: `pull request ${source}`, ...parseUnifiedDiff(diff) };
}

/** A diff that was pasted into the command, with or without a fence around it. */
function readCommand(command: string): Read | null {
  if (!looksLikeDiff(command)) return null;
  const start = command.search(/^(?:diff --git |--- \S)/m);
  return { source: "the command", ...parseUnifiedDiff(command.slice(start).replace(/^```\s*$/m, "")) };
}

async function readAll(ctx: NodeContext): Promise<Read[]> {
  const { attachments, task_description: command } = ctx.input;
  const reads: Read[] = [];
  for (const attachment of attachments) {
    const isHere = attachment.content !== undefined || attachment.content_base64 !== undefined;
    if (isHere) reads.push(readAttachment(attachment));
    else {
      const pull = await readPullRequest(attachment.url ?? "", ctx);
      reads.push(pull ?? { source: oneLine(attachment.name, 120), files: [], notes: [`${oneLine(attachment.name, 120)} was not fetched: only URLs of GitHub pull requests are.`] });
    }
  }
  if (reads.some((read) => read.files.length > 0)) return reads;
  const pasted = readCommand(command) ?? (await readPullRequest(command, ctx));
  return pasted ? [...reads, pasted] : reads;
}

/** A file may come in several attachments: hunks of diffs are put together, of whole files the last one counts. */
function onePerPath(files: ChangedFile[]): ChangedFile[] {
  const byPath = new Map<string, ChangedFile>();
  for (const file of files) {
    const before = byPath.get(file.path);
    const isSecondPart = before && !file.isWhole && !before.isWhole;
    byPath.set(file.path, isSecondPart ? { ...file, hunks: [...before.hunks, ...file.hunks], added: before.added + file.added, removed: before.removed + file.removed } : file);
  }
  return [...byPath.values()];
}

/** Reads the change: attachments, or a diff pasted into the command, or the pull request that the command names. */
export async function fetchDiff(_state: unknown, ctx: NodeContext): Promise<ReviewPatch> {
  const reads = await readAll(ctx);
  const notes = reads.flatMap((read) => read.notes);
  const files = onePerPath(reads.flatMap((read) => read.files));
  if (files.length === 0) throw new CallerMistake([...notes.slice(0, 3), NOTHING_TO_REVIEW].join(" "));
  if (files.every((file) => file.added === 0 && file.removed === 0))
    throw new CallerMistake("The diff changes no line of text: it only renames, moves or replaces binary files. There is nothing to review.");
  for (const note of notes.slice(0, 10)) ctx.warn({ code: "INPUT_NOT_READ", message: note });
  const source = reads.filter((read) => read.files.length > 0).map((read) => read.source);
  return { source: oneLine(source.join(", "), 200), files, hasModel: ctx.hasModel };
}
