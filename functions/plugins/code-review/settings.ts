/** The tenant's `plugin_config`. A setting that makes no sense is left out with a warning; it does not stop a review. */
import type { Warning } from "@aau/sdk/envelopes";
import * as v from "valibot";

const ForbiddenPattern = v.object({ pattern: v.pipe(v.string(), v.minLength(1), v.maxLength(300)), message: v.pipe(v.string(), v.minLength(1), v.maxLength(300)) });
const RuleName = v.pipe(v.string(), v.regex(/^[a-z][a-z-]{1,60}$/));
const Level = v.picklist(["off", "warn", "error", 0, 1, 2]);
const RequiredRule = v.union([Level, v.pipe(v.looseTuple([Level]), v.maxLength(5))]);

const MaxLineLength = v.pipe(v.number(), v.integer(), v.minValue(20), v.maxValue(5000));
const ForbiddenPatterns = v.pipe(v.array(v.unknown()), v.maxLength(50));
const RequiredRules = v.record(v.string(), v.unknown());

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

const invalid = (message: string): Warning => ({ code: "INVALID_SETTING", message });

function read<Schema extends v.GenericSchema>(schema: Schema, value: unknown, name: string, warnings: Warning[]): v.InferOutput<Schema> | null {
  if (value === undefined || value === null) return null;
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  warnings.push(invalid(`The setting ${name} was left out: ${parsed.issues[0].message.slice(0, 200)}.`));
  return null;
}

export function readCodingStandards(config: Readonly<Record<string, unknown>>): { standards: CodingStandards; warnings: Warning[] } {
  const warnings: Warning[] = [];
  const standards: CodingStandards = { maxLineLength: null, forbiddenPatterns: [], requiredRules: {} };
  const given = read(v.record(v.string(), v.unknown()), config.coding_standards, "coding_standards", warnings);
  if (!given) return { standards, warnings };
  standards.maxLineLength = read(MaxLineLength, given.max_line_length, "coding_standards.max_line_length", warnings);
  for (const [index, entry] of (read(ForbiddenPatterns, given.forbidden_patterns, "coding_standards.forbidden_patterns", warnings) ?? []).entries()) {
    const pattern = read(ForbiddenPattern, entry, `coding_standards.forbidden_patterns[${index}]`, warnings);
    if (pattern) standards.forbiddenPatterns.push(pattern);
  }
  const rules = Object.entries(read(RequiredRules, given.required_eslint_rules, "coding_standards.required_eslint_rules", warnings) ?? {});
  for (const [name, value] of rules.slice(0, 100)) {
    const shown = v.is(RuleName, name) ? name : "(not a rule's name)";
    const rule = v.is(RuleName, name) ? read(RequiredRule, value, `required_eslint_rules.${name}`, warnings) : null;
    if (rule === null) warnings.push(invalid(`The ESLint rule ${shown} was left out.`));
    else if (holdsQuantifier(rule)) warnings.push(invalid(`The ESLint rule ${name} was left out: patterns in options are not taken; use forbidden_patterns.`));
    else standards.requiredRules[name] = rule;
  }
  return { standards, warnings };
}

export function readGithubApiUrl(config: Readonly<Record<string, unknown>>): string | null {
  return v.is(v.pipe(v.string(), v.maxLength(500)), config.github_api_url) ? config.github_api_url : null;
}
