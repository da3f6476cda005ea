/** The tenant's `plugin_config`. */
import type { Warning } from "@aau/sdk/envelopes";
import * as v from "valibot";

const ForbiddenPattern = v.strictObject({ pattern: v.pipe(v.string(), v.minLength(1), v.maxLength(300)), message: v.pipe(v.string(), v.minLength(1), v.maxLength(300)) });
const RuleName = v.pipe(v.string(), v.regex(/^[a-z][a-z-]{1,60}$/));
const Level = v.picklist(["off", "warn", "error", 0, 1, 2]);
const RequiredRule = v.union([Level, v.pipe(v.looseTuple([Level]), v.maxLength(5))]);

export const Settings = v.strictObject({
  github_api_url: v.optional(v.pipe(v.string(), v.maxLength(500), v.description("Base URL of a GitHub Enterprise API."))),
  coding_standards: v.optional(
    v.strictObject({
      max_line_length: v.optional(v.pipe(v.number(), v.integer(), v.minValue(20), v.maxValue(5000))),
      forbidden_patterns: v.optional(v.pipe(v.array(ForbiddenPattern), v.maxLength(50), v.description("Patterns in RE2 syntax, each with what to say of a line that it matches."))),
      required_eslint_rules: v.optional(v.pipe(v.record(RuleName, RequiredRule), v.maxEntries(100), v.description("Names and settings of ESLint core rules."))),
    }),
  ),
});

export type ForbiddenPattern = v.InferOutput<typeof ForbiddenPattern>;
export type RequiredRule = v.InferOutput<typeof RequiredRule>;

export interface CodingStandards {
  maxLineLength: number | null;
  forbiddenPatterns: ForbiddenPattern[];
  requiredRules: Record<string, RequiredRule>;
}

/** Options of ESLint rules may be regular expressions, which then run on a stranger's code; one without quantifiers cannot run away. */
function holdsQuantifier(value: unknown): boolean {
  if (typeof value === "string") return /[*+{]/.test(value);
  return typeof value === "object" && value !== null && Object.values(value).some(holdsQuantifier);
}

/** What no schema can tell is left out with a warning; it does not stop a review. */
export function readCodingStandards(config: Readonly<Record<string, unknown>>): { standards: CodingStandards; warnings: Warning[] } {
  const { coding_standards: given } = v.parse(Settings, config);
  const warnings: Warning[] = [];
  const requiredRules: CodingStandards["requiredRules"] = {};
  for (const [name, rule] of Object.entries(given?.required_eslint_rules ?? {})) {
    if (holdsQuantifier(rule))
      warnings.push({ code: "INVALID_SETTING", message: `The ESLint rule ${name} was left out: patterns in options are not taken; use forbidden_patterns.` });
    else requiredRules[name] = rule;
  }
  return { standards: { maxLineLength: given?.max_line_length ?? null, forbiddenPatterns: given?.forbidden_patterns ?? [], requiredRules }, warnings };
}

export function readGithubApiUrl(config: Readonly<Record<string, unknown>>): string | null {
  return v.parse(Settings, config).github_api_url ?? null;
}
