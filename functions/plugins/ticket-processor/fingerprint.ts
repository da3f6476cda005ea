/**
 * Which issue this is, so that the same one finds its ticket again. A finding of a review is its rule, its file and its place among the
 * same findings there: line numbers move whenever somebody edits above. Anything else is what its title says.
 */
import { createHash } from "node:crypto";

/** Case, punctuation and spacing are wording. */
function normalised(text: string): string {
  return text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

export function fingerprintOf(issue: { title: string; rule: string | null; path: string | null; occurrence: number }): string {
  const parts = issue.path === null ? ["text", normalised(issue.title)] : ["finding", issue.path, issue.rule ?? "", normalised(issue.title), String(issue.occurrence)];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

const NOISE = new Set("a an and are as at be by for from has have i in is it its of on or our that the their this to was we were when with you your".split(" "));

/** Plural and tense are wording too; more than that would need a dictionary. */
const stem = (word: string) => (word.length > 4 ? word.replace(/(?:ing|ed|es|s)$/, "") : word);

/** The words that carry a title's meaning. */
export function words(title: string): Set<string> {
  return new Set(
    normalised(title)
      .split(" ")
      .filter((word) => word !== "" && !NOISE.has(word))
      .map(stem),
  );
}

const numbersIn = (set: ReadonlySet<string>) => [...set].filter((word) => /\d/.test(word)).sort();

/** 0 to 1: the share of words that two titles have in common; 0 when they name different numbers, which tell floors and versions apart. */
export function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  if (a.size === 0 || b.size === 0 || numbersIn(a).join(" ") !== numbersIn(b).join(" ")) return 0;
  let shared = 0;
  for (const word of a) if (b.has(word)) shared += 1;
  return shared / (a.size + b.size - shared);
}
