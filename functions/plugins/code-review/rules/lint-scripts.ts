/**
 * Runs ESLint inside the process over the fragments of JavaScript and TypeScript files. Load it with `await import()`: ESLint, Babel and
 * the plugins take 100 ms, which a cold start should not pay before the first review needs them.
 */
import { Linter, type Linter as LinterTypes } from "eslint/universal";
// The plugin's own entry reads its package.json from disk, which a bundle does not have beside it.
import unsanitizedMethod from "eslint-plugin-no-unsanitized/lib/rules/method.js";
import unsanitizedProperty from "eslint-plugin-no-unsanitized/lib/rules/property.js";
import security from "eslint-plugin-security";
import { breather } from "../breathe.ts";
import type { Fragment, ReadyFile } from "../change.ts";
import { extensionOf } from "../diff/file-kind.ts";
import { makeTimeLimit, TIMED_OUT } from "../time-limit.ts";
import { babelForEslint } from "./babel-for-eslint.ts";
import { fragmentText } from "./rebuild-fragments.ts";

export type Rules = LinterTypes.RulesRecord;

export interface LintMessage {
  path: string;
  rule: string;
  /** ESLint's text; for `no-restricted-syntax`, the message that the configuration gave. */
  text: string;
  /** A changed line of the new side. */
  line: number;
}

/** Tells where functions begin and end, since `complexity` points only at their heads. */
const functionRange = {
  create: (context: { report(problem: { loc: object; message: string }): void }) => ({
    ":function"(node: { loc?: object | null; parent?: { type?: string; loc?: object | null } }) {
      const parent = node.parent;
      const loc = parent?.type === "MethodDefinition" || parent?.type === "Property" || parent?.type === "VariableDeclarator" ? parent.loc : node.loc;
      if (loc) context.report({ loc, message: "range" });
    },
  }),
};

const GLOBALS = Object.fromEntries(
  [
    "window",
    "self",
    "globalThis",
    "global",
    "document",
    "setTimeout",
    "setInterval",
    "setImmediate",
    "execScript",
    "process",
    "require",
    "console",
    "Function",
    "eval",
    "Math",
    "Date",
    "RegExp",
    "Promise",
    "JSON",
    "Object",
    "Array",
    "Number",
    "String",
    "Symbol",
  ].map((name) => [name, "readonly" as const]),
);

function configFor(rules: Rules, path: string): unknown[] {
  return [
    {
      languageOptions: { parser: babelForEslint(path), globals: GLOBALS },
      // Comments in the diff must not switch off the rules that judge it.
      linterOptions: { noInlineConfig: true, reportUnusedDisableDirectives: "off" },
      plugins: { security, "no-unsanitized": { rules: { method: unsanitizedMethod, property: unsanitizedProperty } }, aau: { rules: { "function-range": functionRange } } },
      rules: { ...rules, ...(rules.complexity ? { "aau/function-range": "warn" } : {}) },
    },
  ];
}

/** ESLint's types do not know parsers that give a foreign tree; its own validation of the configuration reads what is passed. */
function isConfig(config: unknown): config is LinterTypes.Config[] {
  return Array.isArray(config);
}

/** Building a configuration takes ESLint 2 ms, parsing a hunk a tenth of it: so one run takes many texts, as it does for the code blocks of a Markdown file. */
function verifyAll(texts: readonly string[], rules: Rules, path: string): LinterTypes.LintMessage[][] {
  const config = configFor(rules, path);
  if (!isConfig(config)) return [];
  let lists: LinterTypes.LintMessage[][] = [];
  new Linter().verify("", config, {
    filename: "change.js",
    preprocess: () => [...texts],
    postprocess: (found) => {
      lists = found;
      return [];
    },
  });
  return lists;
}

/** The changed line that a message is about: the first one in its range, or for a function's head the first one in its body. */
function changedLineOf(message: LinterTypes.LintMessage, fragment: Fragment, ranges: LinterTypes.LintMessage[]): number | null {
  let last = message.endLine ?? message.line;
  if (message.ruleId === "complexity") {
    const inside = ranges.filter((range) => range.line <= message.line && (range.endLine ?? range.line) >= last).sort((a, b) => b.line - a.line)[0];
    last = inside?.endLine ?? last;
  }
  const lines = fragment.lines.slice(Math.max(0, message.line - 2), Math.max(0, last - 1));
  return message.line < 2 ? null : (lines.find((line) => line.isChanged)?.number ?? null);
}

interface Piece {
  path: string;
  fragment: Fragment;
  text: string;
}

/** About 30 ms of work. */
const GROUP_CHARACTERS = 30_000;
const GROUP_MS = 3000;
/** After these, the rest is left unseen. */
const MAX_TIMEOUTS = 2;

/** Pieces that are parsed alike, as many as make one group. */
function* inGroups(files: readonly Lintable[]): Generator<Piece[]> {
  const open = new Map<string, { pieces: Piece[]; size: number }>();
  for (const { path, fragments } of files) {
    for (const fragment of fragments) {
      const text = fragmentText(fragment);
      const group = open.get(extensionOf(path)) ?? { pieces: [], size: 0 };
      open.set(extensionOf(path), group);
      group.pieces.push({ path, fragment, text });
      group.size += text.length;
      if (group.size < GROUP_CHARACTERS) continue;
      yield group.pieces;
      open.delete(extensionOf(path));
    }
  }
  for (const { pieces } of open.values()) yield pieces;
}

/** @returns one list per piece; `null` where a rule tripped over the code. Rules are written for whole programs, and one may throw on a fragment. */
function verifyGroup(group: readonly Piece[], rules: Rules): (LinterTypes.LintMessage[] | null)[] {
  try {
    return verifyAll(
      group.map((piece) => piece.text),
      rules,
      group[0]?.path ?? "",
    );
  } catch {
    return group.length === 1 ? [null] : group.flatMap((piece) => verifyGroup([piece], rules));
  }
}

export type Lintable = Pick<ReadyFile, "path" | "fragments">;

/** @returns what the rules say of changed lines, and the paths of which they have not seen everything. */
export async function lintScripts(files: readonly Lintable[], rules: Rules, signal: AbortSignal): Promise<{ messages: LintMessage[]; unseen: string[] }> {
  const breathe = breather(signal);
  const messages: LintMessage[] = [];
  const unseen = new Set<string>();
  const limited = makeTimeLimit();
  let timeouts = 0;
  for (const group of inGroups(files)) {
    await breathe();
    const lists = timeouts < MAX_TIMEOUTS ? limited(GROUP_MS, () => verifyGroup(group, rules)) : TIMED_OUT;
    if (lists === TIMED_OUT) {
      timeouts += 1;
      for (const piece of group) unseen.add(piece.path);
      continue;
    }
    for (const [index, all] of lists.entries()) {
      const piece = group[index];
      if (!piece) continue;
      if (all === null || all.some((message) => message.fatal)) unseen.add(piece.path);
      const ranges = (all ?? []).filter((message) => message.ruleId === "aau/function-range");
      for (const message of all ?? []) {
        if (message.ruleId === null || message.ruleId === "aau/function-range") continue;
        const line = changedLineOf(message, piece.fragment, ranges);
        if (line !== null) messages.push({ path: piece.path, rule: message.ruleId, text: message.message, line });
      }
    }
  }
  return { messages, unseen: [...unseen] };
}

/** Whether ESLint takes a rule with these options; a tenant may have asked for one that does not exist. */
export function isKnownRule(name: string, setting: LinterTypes.RuleEntry): boolean {
  try {
    return !verifyAll([""], { [name]: setting }, "file.js")
      .flat()
      .some((message) => /not found|Definition for rule/i.test(message.message));
  } catch {
    return false;
  }
}
