/** What `splitIntents` knows of English: where a command may begin, with which verb, and whether it is complete. */
import * as words from "./command-words.ts";
import { OPAQUE } from "./opaque-spans.ts";

export interface Token {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

export function tokensOf(hidden: string): Token[] {
  return [...hidden.matchAll(/\uE000+|[\p{L}\p{N}](?:[\p{L}\p{N}'’_.+#/@-]*[\p{L}\p{N}])?|->|=>|→|[.,;:!?&\n]/gu)].map((match) => ({
    text: match[0].toLowerCase().replaceAll("’", "'"),
    start: match.index,
    end: match.index + match[0].length,
  }));
}

/** A sentence's start, or a comma or an "and" within one. */
export type Boundary = "sentence" | "word";

/** Where a new command may begin: at a sentence's start, at "then", or at a comma or "and" within one. */
export function boundaryAt(tokens: readonly Token[], at: number): Boundary | null {
  const [before, here, next] = [tokens[at - 1]?.text, tokens[at]?.text ?? "", tokens[at + 1]?.text];
  if (at === 0) return "sentence";
  if (before !== undefined && SENTENCE_END.has(before) && !(before === "." && words.ABBREVIATIONS.has(tokens[at - 2]?.text ?? ""))) return "sentence";
  if (here === "then" || (next === "then" && (here === "and" || here === ",")) || (here === "after" && (next === "that" || next === "this")) || here === "afterwards")
    return "sentence";
  if (here === "and" || here === "plus" || here === "&" || here === "also" || (here === "as" && next === "well" && tokens[at + 2]?.text === "as"))
    return before === "," ? null : "word";
  return here === "," ? "word" : null;
}

const SENTENCE_END = new Set([".", "!", "?", ";", "\n", ":", "->", "=>", "→"]);
export const isMark = (token: Token | undefined): boolean => token !== undefined && (SENTENCE_END.has(token.text) || token.text === "," || token.text === "&");

/** The place of the verb with which a command begins here, behind connecting and polite words and adjuncts; null: no command begins here. */
export function headOf(tokens: readonly Token[], from: number, boundary: Boundary): number | null {
  let at = from;
  for (let steps = 0; steps < 12; steps++) {
    const behind = fillerEnd(tokens, at) ?? adjunctEnd(tokens, at);
    if (behind === null) break;
    at = behind;
  }
  if (words.NEGATIONS.has(tokens[at]?.text ?? "") || (tokens[at]?.text === "do" && tokens[at + 1]?.text === "not")) return null;
  return isVerb(tokens, at, boundary) || isQuestion(tokens, at) ? at : null;
}

/** Behind the comma that ends an adjunct such as "for each issue, …"; null where none begins. */
function adjunctEnd(tokens: readonly Token[], at: number): number | null {
  if (!words.ADJUNCT_STARTS.has(tokens[at]?.text ?? "") || isQuestion(tokens, at)) return null;
  for (let place = at + 1; place < Math.min(tokens.length, at + 24); place++) {
    if (tokens[place]?.text === ",") return place + 1;
    if (isMark(tokens[place])) return null;
  }
  return null;
}

/** A command's verb with something behind it that it can act on. */
function isVerb(tokens: readonly Token[], at: number, boundary: Boundary): boolean {
  const [verb, next] = [tokens[at]?.text ?? "", tokens[at + 1]?.text];
  if (next === undefined || isMark(tokens[at + 1]) || next === "of" || next === "and" || next === "or") return false;
  if (words.isPlainVerb(verb)) return !BE.has(next);
  if (!words.isNounVerb(verb) || words.COMPOUNDS.test(`${verb} ${next}`)) return false;
  if (words.OBJECT_STARTS.has(next) || next.startsWith(OPAQUE) || /^\d/.test(next)) return true;
  // "file tickets": within a sentence, only what follows tells it from "closed and open tickets".
  const behind = tokens[at + 2]?.text ?? "";
  if (next.length < 4 || !next.endsWith("s") || next.endsWith("ss") || words.AUXILIARIES.has(behind)) return false;
  return boundary === "sentence" || behind === "for" || behind === "about" || behind === "that" || behind === "with";
}

/** What is followed by one of these is the subject of a sentence. */
const BE = new Set(["is", "are", "was", "were", "has", "had"]);

/** "what is open", "how do we test it": asked directly, with its verb before its subject. */
function isQuestion(tokens: readonly Token[], at: number): boolean {
  if (!words.QUESTION_WORDS.has(tokens[at]?.text ?? "")) return false;
  return words.AUXILIARIES.has(tokens[at + 1]?.text ?? "") || words.AUXILIARIES.has(tokens[at + 2]?.text ?? "");
}

export const hasObject = (tokens: readonly Token[], verb: number, end: number): boolean => {
  const behind = tokens.slice(verb + 1, end).filter((token) => !isMark(token));
  return behind.some(({ text }) => !words.FILLERS.has(text));
};

/** True when what stands between is a command of its own, and a verb behind it could not be the partner of another one in it. */
export function isWholeCommand(tokens: readonly Token[], verb: number, end: number): boolean {
  if (!hasObject(tokens, verb, end)) return false;
  const isCausative = words.CAUSATIVES.has(tokens[verb]?.text ?? "");
  for (let at = verb + 1; at < end; at++) {
    const [word, next] = [tokens[at]?.text ?? "", wordAfter(tokens, at, end)];
    if (next === null) break;
    // "don't summarise it and create a ticket": neither may be wanted.
    if (/^(?:not|never|don't|dont)$/.test(word)) return false;
    // "to fetch data", "which can fetch data", "we fetch data": the next bare verb may go with this one.
    if (words.MODALS.has(word) && words.isCommandVerb(next)) return false;
    if (word !== "to" && words.MODALS.has(word)) return false;
    if (words.RELATIVES.has(word) && !words.isFiniteForm(next) && !words.SUBJECTS.has(next) && at > verb + 1 && word !== "that") return false;
    if (word === "that" && words.isCommandVerb(next)) return false;
    if (words.SUBJECTS.has(word) && !words.isFiniteForm(next)) return false;
    if (isCausative && words.isPlainVerb(next)) return false;
  }
  return true;
}

/** The next word but for adverbs and negations. */
function wordAfter(tokens: readonly Token[], at: number, end: number): string | null {
  for (let place = at + 1; place < end; place++) {
    const text = tokens[place]?.text ?? "";
    if (!text.endsWith("ly") && !words.NEGATIONS.has(text) && !words.FILLERS.has(text)) return text;
  }
  return null;
}

/** Behind a word or phrase that says nothing of what to do; null where none stands. */
export function fillerEnd(tokens: readonly Token[], at: number): number | null {
  const text = tokens[at]?.text ?? "";
  if (isMark(tokens[at]) || words.FILLERS.has(text) || /^\d{1,2}$/.test(text)) return at + 1;
  const polite = words.POLITE.get(text)?.find((phrase) => phrase.every((word, i) => tokens[at + i]?.text === word));
  return polite ? at + polite.length : null;
}
