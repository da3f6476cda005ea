import type { NodeContext } from "@aau/sdk";
import { breather } from "../breathe.ts";
import { addedLines, type Finding, type ReadyFile } from "../change.ts";
import { isCode, isTestPath } from "../diff/file-kind.ts";
import { oneLine, prose } from "../printable.ts";
import type { Rules } from "../rules/lint-scripts.ts";
import { findingOf, type Weakness } from "../rules/weakness.ts";
import { type CodingStandards, readCodingStandards } from "../settings.ts";
import type { BranchInput, ReviewPatch } from "../state.ts";

const DEBUGGER: Weakness = { severity: "medium", confidence: 0.95, message: "A `debugger` statement stops whoever runs this with tools open.", suggestion: "Remove it." };
const CONSOLE: Weakness = { severity: "low", confidence: 0.6, message: "Output by `console` has no level and no context.", suggestion: "Use the project's logger, or remove it." };
const TODO: Weakness = { severity: "low", confidence: 0.5, message: "The change leaves work behind.", suggestion: "Do it now, or open an issue and name it here." };
const DEFAULTS: Rules = { "no-debugger": "error", "no-console": "error" };
const UNTOLD = /\b(?:TODO|FIXME|XXX|HACK)\b/;
const WITH_ISSUE = /#\d|[A-Z]{2,10}-\d|https?:\/\//;

/** On a fragment these would complain about everything that the diff does not show. */
const NEED_WHOLE_FILE = new Set([
  "no-undef",
  "no-unused-vars",
  "no-unused-labels",
  "no-unused-private-class-members",
  "eol-last",
  "max-lines",
  "strict",
  "no-useless-assignment",
  "prefer-const",
  "no-use-before-define",
  "unicode-bom",
  "max-classes-per-file",
  "no-restricted-syntax",
]);

/** The tenant's patterns run on RE2, which takes linear time whatever the pattern; what RE2 does not know is left out. */
async function compilePatterns({ forbiddenPatterns }: CodingStandards) {
  if (forbiddenPatterns.length === 0) return { patterns: [], invalid: [] };
  const { RE2JS } = await import("re2js");
  const patterns: { matches: (text: string) => boolean; message: string; index: number }[] = [];
  const invalid: number[] = [];
  for (const [index, { pattern, message }] of forbiddenPatterns.entries()) {
    try {
      const compiled = RE2JS.compile(pattern);
      patterns.push({ matches: (text) => compiled.matcher(text).find(), message, index });
    } catch {
      invalid.push(index);
    }
  }
  return { patterns, invalid };
}

type Patterns = Awaited<ReturnType<typeof compilePatterns>>["patterns"];

function lineFindings(file: ReadyFile, standards: CodingStandards, patterns: Patterns): Finding[] {
  const found: Finding[] = [];
  for (const { number: line, text } of addedLines(file)) {
    const add = (rule: string, weakness: Weakness) => found.push(findingOf("style", rule, weakness, { path: file.path, line }));
    const max = standards.maxLineLength;
    if (max !== null && isCode(file.language) && text.length > max)
      add("max-line-length", { severity: "low", confidence: 0.9, message: `The line has ${text.length} characters; the standard allows ${max}.`, suggestion: "Break the line." });
    if (isCode(file.language) && UNTOLD.test(text) && !WITH_ISSUE.test(text)) add("todo", TODO);
    for (const { matches, message, index } of patterns) {
      if (matches(text))
        add(`forbidden-pattern-${index + 1}`, { severity: "medium", confidence: 0.9, message: oneLine(prose(message), 300), suggestion: "Follow the coding standard." });
    }
  }
  return found;
}

/** The tenant's rules, as far as ESLint knows them and a fragment is enough for them. */
async function scriptFindings(files: readonly ReadyFile[], { requiredRules }: CodingStandards, signal: AbortSignal): Promise<Finding[]> {
  if (files.length === 0) return [];
  const { lintScripts } = await import("../rules/lint-scripts.ts");
  const forFragments = Object.fromEntries(Object.entries(requiredRules).filter(([name]) => !NEED_WHOLE_FILE.has(name)));
  const whole = await lintScripts(
    files.filter((file) => file.isWhole),
    { ...DEFAULTS, ...requiredRules },
    signal,
  );
  const parts = await lintScripts(
    files.filter((file) => !file.isWhole),
    { ...DEFAULTS, ...forFragments },
    signal,
  );
  return [...whole.messages, ...parts.messages].flatMap(({ path, rule, text, line }) => {
    const isRequired = Object.hasOwn(requiredRules, rule);
    if (rule === "no-console" && !isRequired && isTestPath(path)) return [];
    const builtIn = isRequired ? null : rule === "no-debugger" ? DEBUGGER : rule === "no-console" ? CONSOLE : null;
    return [
      findingOf("style", rule, builtIn ?? { severity: "medium", confidence: 0.85, message: oneLine(prose(text), 400), suggestion: `Follow the standard's rule ${rule}.` }, {
        path,
        line,
      }),
    ];
  });
}

/** The tenant's settings, without what ESLint or RE2 do not take. Every batch reads the same, so merge_results says once what is wrong. */
async function readStandards(ctx: NodeContext, hasScripts: boolean) {
  const { standards, warnings } = readCodingStandards(ctx.config);
  const { patterns, invalid } = await compilePatterns(standards);
  for (const index of invalid)
    warnings.push({
      code: "INVALID_SETTING",
      message: `coding_standards.forbidden_patterns[${index}] was left out: it is no RE2 expression (look-around and back-references are not).`,
    });
  const names = Object.keys(standards.requiredRules);
  if (hasScripts && names.length > 0) {
    const { isKnownRule } = await import("../rules/lint-scripts.ts");
    for (const name of names) {
      if (isKnownRule(name, standards.requiredRules[name] ?? "off")) continue;
      delete standards.requiredRules[name];
      warnings.push({ code: "INVALID_SETTING", message: `The ESLint rule ${name} was left out: ESLint does not know it, or not with these options.` });
    }
  }
  return { standards, patterns, warnings };
}

/** The tenant's coding standards, and a few habits that every project shares. */
export async function style({ batch }: BranchInput, ctx: NodeContext): Promise<ReviewPatch> {
  const scripts = batch.files.filter((file) => file.fragments.length > 0);
  const { standards, patterns, warnings } = await readStandards(ctx, scripts.length > 0);
  const breathe = breather(ctx.signal);
  const found: Finding[][] = [];
  for (const file of batch.files) {
    await breathe();
    if (!file.isGenerated) found.push(lineFindings(file, standards, patterns));
  }
  found.push(await scriptFindings(scripts, standards, ctx.signal));
  return { found: found.flat(), notices: warnings };
}
