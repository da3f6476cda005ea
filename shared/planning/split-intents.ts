/**
 * Splits a command into the things that it asks for: "Review this change and create a ticket for each issue" asks for two. It cuts only
 * where a new command begins beyond doubt, since each part may become an execution that is paid for; whether parts go to different plugins
 * is decided by their scores, not here. Rules over closed word lists, English only: a command in another language is one intent.
 *
 * `compromise`, the small NLP library, was weighed: 330 ms to load, 1.7 ms a short command and 240 ms a long one, and it left the command
 * above in one piece. This takes microseconds.
 */
import { boundaryAt, fillerEnd, hasObject, headOf, isMark, isWholeCommand, type Token, tokensOf } from "./command-grammar.ts";
import * as words from "./command-words.ts";
import { hideOpaque } from "./opaque-spans.ts";
import { referenceOf } from "./refers-back.ts";

export interface Intent {
  /** In the caller's own words. */
  readonly text: string;
  /** Positions of the intents whose results this one needs; empty: it can run at once. */
  readonly needs: readonly number[];
}

export interface SplitCommand {
  /** At least one, in the order in which they have to run. */
  readonly intents: readonly Intent[];
  /** What the command says before its first instruction, and what is pasted behind the last: it is for every part. */
  readonly context: string;
  readonly material: string;
}

/** More parts than this are no list of commands but a text with verbs in it. */
export const MAX_INTENTS = 6;
/** Instructions are short; what is longer is material. */
const MAX_INSTRUCTION_LENGTH = 2_000;

/** Most commands hold nothing of this, and are not looked at any further. */
const MAY_BE_CUT = /[,;.!?\n&>→:]\s*\S|\b(?:and|then|plus|also|as well as|after|before|once)\b/i;

export function splitIntents(command: string): SplitCommand {
  const whole: SplitCommand = { intents: [{ text: command, needs: [] }], context: "", material: "" };
  const start = command.slice(0, MAX_INSTRUCTION_LENGTH);
  if (!MAY_BE_CUT.test(start)) return whole;
  const hidden = hideOpaque(start);
  const end = instructionsEnd(hidden);
  const tokens = tokensOf(hidden.slice(0, end));
  const parts = partsOf(tokens, end, command);
  if (parts.length < 2 || parts.length > MAX_INTENTS) return whole;

  const intents: Intent[] = [];
  for (const [i, part] of parts.entries()) {
    const reference = i === 0 ? "none" : part.isAfter ? "last" : referenceOf(hidden.slice(part.reads, part.end));
    const before = intents.at(-1);
    const needs = reference === "all" ? [...intents.keys()] : reference === "last" && before ? [...before.needs, i - 1] : [];
    intents.push({ text: part.text, needs });
  }
  return { intents, context: command.slice(0, parts[0]?.context ?? 0).trim(), material: command.slice(end).trim() };
}

/** Where the instructions end and material begins: behind a colon, or on a new line that does not go on with them. */
function instructionsEnd(hidden: string): number {
  const marks = /:(?=\s|$|\uE000)|\n+/g;
  let isList = LIST_ITEM.test(hidden);
  for (let mark = marks.exec(hidden); mark; mark = marks.exec(hidden)) {
    const [before, after] = [hidden.slice(0, mark.index), hidden.slice(mark.index + mark[0].length)];
    const announces = ANNOUNCEMENT.test(before) && !startsWithCommand(before);
    isList ||= announces && LIST_ITEM.test(after);
    if (mark[0] === ":" ? announces : GOES_ON.test(after) || (isList && LIST_ITEM.test(after))) continue;
    return mark.index + (mark[0] === ":" ? 1 : 0);
  }
  return hidden.length;
}

/** "Two things:", "please do the following:" announce instructions; "create tickets for:" announces material. */
const ANNOUNCEMENT = /\b(?:following|things|tasks|steps|jobs|actions|points|todos?|please|i need|i want|we need|we want|here is what i need)\s*:?\s*$/i;
const LIST_ITEM = /^\s*(?:[-*•]|\(?\d{1,2}[.)])\s+/;
const GOES_ON = /^\s*(?:and|then|also|afterwards?|after that|next|finally|lastly|in addition|additionally)\b/i;

function startsWithCommand(text: string): boolean {
  return headOf(tokensOf(text), 0, "sentence") !== null;
}

interface Part {
  /** Of the words that belong to the part, connecting words included. */
  readonly reads: number;
  readonly end: number;
  readonly text: string;
  /** Where the text before the first command ends. */
  readonly context: number;
  /** Its words say that it comes after the one before. */
  readonly isAfter: boolean;
}

interface Cut {
  /** Place of the token with which the new part begins, and of the one that is its verb. */
  readonly at: number;
  readonly verb: number;
}

function partsOf(tokens: readonly Token[], end: number, command: string): Part[] {
  const cuts = cutsOf(tokens);
  const [first] = cuts;
  if (!first) return [];
  const context = tokens[first.at]?.start ?? 0;
  const parts: Part[] = [];
  for (const [i, cut] of cuts.entries()) {
    const [from, to] = [cut.at, cuts[i + 1]?.at ?? tokens.length];
    const own = { reads: tokens[from]?.start ?? 0, end: tokens[to]?.start ?? end, context };
    const told = { ...own, text: trim(command.slice(tokens[spokenFrom(tokens, cut)]?.start ?? own.reads, own.end)), isAfter: false };
    parts.push(...(inOtherOrder(tokens.slice(from, to), told, command) ?? [told]));
  }
  return parts;
}

/** Connecting and polite words say how parts hang together and are not repeated to the plugin. */
function spokenFrom(tokens: readonly Token[], { at, verb }: Cut): number {
  let place = at;
  while (place < verb) {
    const behind = fillerEnd(tokens, place);
    if (behind === null) break;
    place = behind;
  }
  return place;
}

const trim = (text: string): string =>
  text
    .trim()
    .replace(/^(?:[-*•]|\(?\d{1,2}[.)])\s+/, "")
    .replace(/(?:[\s,;&]|->|=>|→|\band\b|\bthen\b|\bplus\b|\balso\b|\bas well as\b|\n\s*[-*•]|\(?\b\d{1,2}[.)])+$/i, "")
    .trim();

/** The first place is a part, too; the parts begin where a new command does. */
function cutsOf(tokens: readonly Token[]): Cut[] {
  const cuts: Cut[] = [];
  for (let at = 0; at < tokens.length; at++) {
    const boundary = boundaryAt(tokens, at);
    if (boundary === null) continue;
    const last = cuts.at(-1);
    const verb = headOf(tokens, at, boundary);
    if (verb === null) continue;
    if (!last) {
      // "Hi team, review this": what stands before the comma is no command, and told to everyone.
      if (boundary === "sentence" || tokens[at]?.text === ",") cuts.push({ at, verb });
      continue;
    }
    const isComplete = boundary === "word" ? isWholeCommand(tokens, last.verb, at) : hasObject(tokens, last.verb, at);
    if (isComplete) cuts.push({ at: conditionBefore(tokens, last.verb, at), verb });
  }
  return cuts;
}

/** "…, if there are bugs then create a ticket": the condition belongs to what it is the condition of. */
function conditionBefore(tokens: readonly Token[], from: number, at: number): number {
  if (tokens[at]?.text !== "then") return at;
  for (let place = at - 1; place > from && !isMark(tokens[place]); place--) if (CONDITIONS.has(tokens[place]?.text ?? "")) return place;
  return at;
}

const CONDITIONS = new Set(["if", "when", "unless", "once"]);

/** "After reviewing the change, create tickets", "create tickets after reviewing the change", "before replying, check the order": what is done first comes first. */
function inOtherOrder(tokens: readonly Token[], part: Part, command: string): Part[] | null {
  const at = tokens.findIndex(({ text }, i) => (text === "after" || text === "before" || text === "once") && gerundAt(tokens, i + 1) !== null);
  const gerund = at < 0 ? null : gerundAt(tokens, at + 1);
  if (gerund === null) return null;
  const base = words.baseOf(tokens[gerund]?.text ?? "") ?? "";
  const head = headOf(tokens, 0, "sentence");
  const comma = tokens.findIndex(({ text }, i) => i > gerund && text === ",");
  const isFronted = head !== null && head > gerund && comma > 0;
  const inner = isFronted ? tokens.slice(gerund + 1, comma) : tokens.slice(gerund + 1);
  if (inner.length === 0 || head === null) return null;
  if (!isFronted && tokens.slice(head, at).some(({ text }) => words.RELATIVES.has(text) || words.QUESTION_WORDS.has(text) || words.MODALS.has(text))) return null;
  const innerText = trim(`${base} ${command.slice(inner[0]?.start ?? 0, inner.at(-1)?.end ?? 0)}`);
  const outer = isFronted ? command.slice(tokens[comma + 1]?.start ?? part.end, part.end) : command.slice(tokens[head]?.start ?? part.reads, tokens[at]?.start ?? part.end);
  if (!isFronted && !hasObject(tokens, head, at)) return null;
  const [innerPart, outerPart] = [
    { ...part, text: capitalLike(innerText, part.text) },
    { ...part, text: trim(outer) },
  ];
  const isInnerFirst = tokens[at]?.text !== "before";
  return isInnerFirst ? [innerPart, { ...outerPart, isAfter: true }] : [outerPart, { ...innerPart, isAfter: true }];
}

/** "reviewing", "you have reviewed", "having reviewed". */
function gerundAt(tokens: readonly Token[], at: number): number | null {
  let place = at;
  while (["you", "you've", "you're", "have", "having", "finished", "done", "are"].includes(tokens[place]?.text ?? "")) place += 1;
  const form = tokens[place]?.text ?? "";
  if (words.baseOf(form) === null) return null;
  return form.endsWith("ing") || place > at ? place : null;
}

const capitalLike = (text: string, model: string): string => (/^\p{Lu}/u.test(model) ? text.replace(/^\p{Ll}/u, (letter) => letter.toUpperCase()) : text);
