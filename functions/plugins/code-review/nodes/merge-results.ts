import type { NodeContext } from "@aau/sdk";
import type { Finding } from "../change.ts";
import type { ReviewPatch, ReviewState } from "../state.ts";

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Branches end in any order; findings get one, so that the same change gives the same review. */
export function inOrder(findings: readonly Finding[]): Finding[] {
  return findings.toSorted((a, b) => compareText(a.path, b.path) || a.line - b.line || compareText(a.rule, b.rule) || compareText(a.message, b.message));
}

/** A rule that speaks on every line of a file has made its point. */
const MAX_SAME = 50;

/** At most `MAX_SAME` findings of one rule in one file. */
export function withoutFloods(findings: readonly Finding[]): { kept: Finding[]; dropped: number } {
  const counts = new Map<string, number>();
  const kept = findings.filter(({ path, rule }) => {
    const key = `${rule}\u0000${path}`;
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    return count <= MAX_SAME;
  });
  return { kept, dropped: findings.length - kept.length };
}

/** Gathers what the branches found, and says once what they could not see. */
export function mergeResults(state: ReviewState, ctx: NodeContext): ReviewPatch {
  const unseen = [...new Set(state.unseen)].sort(compareText);
  if (unseen.length > 0) {
    const names = unseen.slice(0, 5).join(", ").slice(0, 1000) + (unseen.length > 5 ? ` and ${unseen.length - 5} more` : "");
    ctx.warn({
      code: "NOT_ANALYSABLE",
      message: `The static rules could not read every changed line of ${names}: the pieces in the diff do not parse on their own. Attach the whole files to have them read.`,
    });
  }
  const notices = new Map(state.notices.map((notice) => [notice.message, notice]));
  for (const notice of [...notices.values()].slice(0, 10)) ctx.warn(notice);
  const { kept, dropped } = withoutFloods(inOrder(state.found));
  if (dropped > 0) ctx.warn({ code: "FINDINGS_CUT", message: `${dropped} findings were left out: of one rule in one file, the first ${MAX_SAME} are kept.` });
  return { findings: kept };
}
