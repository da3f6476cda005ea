/**
 * Makes code that parses out of the pieces that a diff shows.
 *
 * A hunk begins and ends anywhere: in the middle of a method, a call, an object. So the brackets that it closes without having
 * opened them get openers in front (`async function*_(){`, `class _{`, …) and those that it leaves open get closers behind, until
 * Babel accepts the text. If nothing fits, unchanged lines at the edges are dropped, then each run of changed lines is tried
 * alone. What still does not parse is counted, so that the review can say what it has not seen.
 */
import jsTokens from "js-tokens";
import { type ChangedFile, type Fragment, type Line, newSide } from "../change.ts";
import { makeTimeLimit, TIMED_OUT } from "../time-limit.ts";
import { parses, topLevelStatements } from "./babel-for-eslint.ts";

/** Work allowed per review. It bounds what a diff made for slowness can cost to a few seconds. */
export interface ParseAllowance {
  /** Characters that may be parsed in attempts. */
  attempts: number;
  /** Characters that may be handed on to be linted. */
  accepted: number;
  /** Hunks that may run into the time limit. */
  timeouts: number;
}
export const newAllowance = (): ParseAllowance => ({ attempts: 5_000_000, accepted: 1_500_000, timeouts: 3 });
/** A hunk takes a millisecond, a file of a megabyte half a second. */
const HUNK_MS = 1500;
/** What an attempt costs beside its text. */
const ATTEMPT_COST = 300;

const MAX_CLOSERS = 6;
const MAX_ATTEMPTS = 40;
/** Longer pieces are cut between two statements, so that linting one does not block the process for long. */
const MAX_FRAGMENT_LINES = 1500;

interface Brackets {
  /** Closers without an opener, in order, each with the word that follows (`else`, `catch`). */
  unopened: { bracket: string; next: string }[];
  /** What closes the openers without a closer, in order. */
  closers: string;
  /** What the text lacks in front to be read as code: the start of a comment, of a template string, or of a chain of calls. */
  start: string;
}

const CLOSER_OF: Record<string, string> = { "(": ")", "[": "]", "{": "}" };

function startOf(text: string): string {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const commentEnd = text.indexOf("*/");
  const commentStart = text.indexOf("/*");
  const endsComment = commentEnd >= 0 && (commentStart < 0 || commentEnd < commentStart);
  if (/^\s*\*/.test(lines[0] ?? "") && (endsComment || lines.every((line) => /^\s*\*/.test(line)))) return "/*";
  return /^\s*(?:\.[^.]|\?[.?]|&&|\|\||[+=])/.test(lines[0] ?? "") ? "_" : "";
}

function readBrackets(text: string, start: string): Brackets {
  const unopened: Brackets["unopened"] = [];
  const open: { bracket: string; before: string }[] = [];
  let last = "";
  let unclosed = "";
  for (const token of jsTokens(start + text)) {
    if (token.type === "WhiteSpace" || token.type === "LineTerminatorSequence" || token.type === "SingleLineComment") continue;
    if (token.type === "MultiLineComment") {
      unclosed = token.closed ? "" : "*/";
      continue;
    }
    if (token.type === "NoSubstitutionTemplate" || token.type === "TemplateTail") unclosed = token.closed ? "" : "`";
    const before = last;
    last = token.value;
    if (before === "}" && unopened.at(-1)?.next === "" && open.length === 0) Object.assign(unopened.at(-1) ?? {}, { next: token.value });
    if (token.type === "TemplateHead") open.push({ bracket: "`", before });
    if (token.type === "TemplateTail" && open.at(-1)?.bracket === "`") open.pop();
    if (token.type !== "Punctuator") continue;
    if (Object.hasOwn(CLOSER_OF, token.value)) open.push({ bracket: token.value, before });
    else if (")]}".includes(token.value) && !open.pop()) unopened.push({ bracket: token.value, next: "" });
  }
  const closers = open
    .reverse()
    .map(({ bracket, before }) => `${bracket === "`" ? "}`" : CLOSER_OF[bracket]}${before === "try" ? "finally{}" : before === "do" ? "while(_)" : ""}`);
  return { unopened, closers: unclosed + closers.join(""), start };
}

type Place = "statements" | "class" | "object" | "list";

/** What may open a bracket at a place, likeliest first, and what place it leads into. */
function openers(bracket: string, next: string, place: Place): { text: string; into: Place }[] {
  if (bracket === ")")
    return place === "statements"
      ? [{ text: "_(", into: "list" }]
      : place === "list"
        ? [{ text: "_(", into: "list" }]
        : place === "object"
          ? [{ text: "_:_(", into: "list" }]
          : [{ text: "_=_(", into: "list" }];
  if (bracket === "]") return place === "object" ? [{ text: "_:[", into: "list" }] : place === "list" ? [{ text: "[", into: "list" }] : [{ text: "_=[", into: "list" }];
  if (place === "class")
    return [
      { text: "async*_(){", into: "statements" },
      { text: "_={", into: "object" },
    ];
  if (place === "object")
    return [
      { text: "async*_(){", into: "statements" },
      { text: "_:{", into: "object" },
    ];
  if (place === "list")
    return [
      { text: "async function*(){", into: "statements" },
      { text: "{", into: "object" },
    ];
  if (next === "else") return [{ text: "if(_){", into: "statements" }];
  if (next === "catch" || next === "finally") return [{ text: "try{", into: "statements" }];
  if (next === "while")
    return [
      { text: "do{", into: "statements" },
      { text: "if(_){", into: "statements" },
    ];
  return [
    { text: "async function*_(){", into: "statements" },
    { text: "class _{", into: "class" },
    { text: "_={", into: "object" },
    { text: "switch(_){", into: "statements" },
  ];
}

const ROOTS: { head: string; tail: string; place: Place }[] = [
  { head: "", tail: "", place: "statements" },
  { head: "class _ extends _{", tail: "}", place: "class" },
  { head: "_={", tail: "}", place: "object" },
  { head: "switch(_){", tail: "}", place: "statements" },
  { head: "_(", tail: ")", place: "list" },
  { head: "interface _{", tail: "}", place: "class" },
  { head: "_=(<>", tail: "</>)", place: "statements" },
];

/** Heads that would make the unopened closers match, outermost first. */
function* headsFor(unopened: Brackets["unopened"], place: Place): Generator<string> {
  const outermost = unopened.at(-1);
  if (!outermost) return yield "";
  for (const { text, into } of openers(outermost.bracket, outermost.next, place)) {
    for (const rest of headsFor(unopened.slice(0, -1), into)) yield text + rest;
  }
}

function wrapWith(brackets: Brackets, lines: readonly Line[], text: string, path: string, allowance: ParseAllowance): Fragment | null {
  if (brackets.unopened.length > MAX_CLOSERS) return null;
  let attempts = 0;
  for (const root of ROOTS) {
    // Any text is text between two tags, so this root is only for what begins with one.
    if (root.tail === "</>)" && !/^\s*</.test(text)) continue;
    for (const head of headsFor(brackets.unopened, root.place)) {
      attempts += 1;
      allowance.attempts -= text.length + ATTEMPT_COST;
      if (attempts > MAX_ATTEMPTS || allowance.attempts < 0) return null;
      const fragment = { head: root.head + head + brackets.start, lines, tail: brackets.closers + root.tail };
      if (parses(fragmentText(fragment), path)) return fragment;
    }
  }
  return null;
}

/** An odd number of backticks: the text begins or ends inside a template string. Both readings are kept where both parse. */
function wrap(lines: readonly Line[], path: string, allowance: ParseAllowance): Fragment[] {
  const text = lines.map((line) => line.text).join("\n");
  if (text.trim() === "") return [{ head: "", lines, tail: "" }];
  const starts = text.split("`").length % 2 === 0 ? [startOf(text), "_=`"] : [startOf(text)];
  return starts.flatMap((start) => wrapWith(readBrackets(text, start), lines, text, path, allowance) ?? []);
}

/** The text that is linted; its line 2 is the fragment's first line. */
export function fragmentText({ head, lines, tail }: Fragment): string {
  return `${head}\n${lines.map((line) => line.text).join("\n")}\n${tail}`;
}

const isContext = (line: Line | undefined): boolean => line !== undefined && !line.isChanged;

/** The same lines with 0 to 3 unchanged lines dropped at either edge, the least dropped first. */
function* trimmed(lines: readonly Line[]): Generator<readonly Line[]> {
  for (let dropped = 0; dropped <= 6; dropped += 1) {
    for (let front = Math.max(0, dropped - 3); front <= Math.min(3, dropped); front += 1) {
      const back = dropped - front;
      const isAllowed = lines.slice(0, front).every(isContext) && lines.slice(lines.length - back).every((line) => back === 0 || isContext(line));
      if (isAllowed && front + back < lines.length) yield lines.slice(front, lines.length - back);
    }
  }
}

function changedRuns(lines: readonly Line[]): Line[][] {
  const runs: Line[][] = [];
  for (const [index, line] of lines.entries()) {
    if (!line.isChanged) continue;
    if (lines[index - 1]?.isChanged) runs.at(-1)?.push(line);
    else runs.push([line]);
  }
  return runs;
}

/** A long fragment is cut where a statement at the top ends. */
function* cut(fragment: Fragment, path: string): Generator<Fragment> {
  if (fragment.lines.length <= MAX_FRAGMENT_LINES || fragment.head || fragment.tail) return yield fragment;
  let from = 0;
  let end = 0;
  for (const statement of topLevelStatements(fragmentText(fragment), path)) {
    if (statement.to - 1 - from > MAX_FRAGMENT_LINES && end > from) {
      yield { head: "", lines: fragment.lines.slice(from, end), tail: "" };
      from = end;
    }
    end = statement.to - 1;
  }
  yield { head: "", lines: fragment.lines.slice(from), tail: "" };
}

/** One hunk: as a whole, without its edges, or run by run. */
function rebuildHunk(lines: readonly Line[], path: string, allowance: ParseAllowance): { fragments: Fragment[]; unseen: number } {
  for (const part of trimmed(lines)) {
    const found = wrap(part, path, allowance);
    if (found.length > 0) return { fragments: found.flatMap((fragment) => [...cut(fragment, path)]), unseen: 0 };
    if (allowance.attempts < 0) break;
  }
  const fragments: Fragment[] = [];
  let unseen = 0;
  for (const run of changedRuns(lines)) {
    const alone = wrap(run, path, allowance);
    fragments.push(...alone);
    if (alone.length === 0) unseen += run.length;
  }
  return { fragments, unseen };
}

/** @returns the fragments, and how many changed lines are in none of them. */
export async function rebuildFragments(
  file: Pick<ChangedFile, "hunks" | "path">,
  allowance: ParseAllowance,
  breathe: () => Promise<void>,
): Promise<{ fragments: Fragment[]; unseen: number }> {
  const limited = makeTimeLimit();
  const fragments: Fragment[] = [];
  let unseen = 0;
  for (const hunk of file.hunks) {
    await breathe();
    const lines = newSide(hunk);
    const changed = lines.filter((line) => line.isChanged).length;
    if (changed === 0) continue;
    allowance.accepted -= lines.reduce((size, line) => size + line.text.length, ATTEMPT_COST);
    const mayTry = allowance.accepted >= 0 && allowance.attempts >= 0 && allowance.timeouts > 0;
    const rebuilt = mayTry ? limited(HUNK_MS, () => rebuildHunk(lines, file.path, allowance)) : null;
    if (rebuilt === TIMED_OUT) allowance.timeouts -= 1;
    if (rebuilt === null || rebuilt === TIMED_OUT) {
      unseen += changed;
      continue;
    }
    for (const fragment of rebuilt.fragments) fragments.push(fragment);
    unseen += rebuilt.unseen;
  }
  return { fragments, unseen };
}
