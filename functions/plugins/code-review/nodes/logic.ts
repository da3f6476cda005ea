import type { NodeContext } from "@aau/sdk";
import { reviewWithModel } from "../ask-model.ts";
import type { Finding, ReadyFile } from "../change.ts";
import type { Rules } from "../rules/lint-scripts.ts";
import { findingOf, type Weakness } from "../rules/weakness.ts";
import type { BranchInput, ReviewPatch } from "../state.ts";

const PROMPT = `Look for bugs: wrong conditions, off-by-one, null and undefined, unhandled errors, promises that nobody awaits, race conditions, edge cases (empty, huge, negative, duplicate, other time zones), broken contracts with callers, resources that are not released, changes of behaviour that the surrounding code does not expect.`;

const bug = (severity: Weakness["severity"], confidence: number, message: string, suggestion: string): Weakness => ({ severity, confidence, message, suggestion });

/** What ESLint can prove wrong without understanding the program; the model does the rest. */
const RULES: Record<string, Weakness> = {
  "no-cond-assign": bug("high", 0.85, "A condition assigns instead of comparing, so it is always the assigned value.", "Compare with `===`."),
  "no-constant-condition": bug("medium", 0.7, "The condition never changes, so one of the ways is dead.", "Remove it, or compare what was meant."),
  "no-constant-binary-expression": bug("medium", 0.8, "This comparison always has the same result.", "Compare what was meant; arrays and objects are never equal to a literal."),
  "no-dupe-keys": bug("high", 0.9, "A key stands twice in the object; the first value is lost.", "Remove or rename one."),
  "no-dupe-else-if": bug("high", 0.9, "This branch is never reached: an earlier condition already covers it.", "Correct the condition."),
  "no-duplicate-case": bug("high", 0.9, "The same case stands twice; the second is never reached.", "Correct the case."),
  "no-self-compare": bug("medium", 0.9, "A value is compared with itself.", "Use `Number.isNaN`, or compare what was meant."),
  "no-self-assign": bug("medium", 0.9, "A value is assigned to itself.", "Assign what was meant."),
  "use-isnan": bug("high", 0.95, "Nothing equals NaN, so this comparison is always false.", "Use `Number.isNaN`."),
  "valid-typeof": bug("high", 0.95, "`typeof` is compared with a word that it never gives, so the result is always the same.", "Correct the name of the type."),
  "no-unsafe-negation": bug("high", 0.9, "The negation applies to the left side only.", "Put the whole expression in brackets."),
  "no-unsafe-optional-chaining": bug("high", 0.85, "This throws when the optional chain ends in undefined.", "Handle undefined first."),
  "no-unsafe-finally": bug("medium", 0.85, "A `return` or `throw` in `finally` swallows the error.", "Move it out of `finally`."),
  "no-unreachable": bug("medium", 0.85, "This code is never reached.", "Remove it, or move it before the return."),
  "no-async-promise-executor": bug("high", 0.85, "An error in an async executor is lost and the promise never settles.", "Make the outer function async instead."),
  "no-promise-executor-return": bug("low", 0.4, "What a promise's executor returns is thrown away.", "Call `resolve` in a block."),
  "no-loss-of-precision": bug("medium", 0.9, "The number cannot be held exactly.", "Use a BigInt or a string."),
  "no-compare-neg-zero": bug("low", 0.8, "`=== -0` is also true for 0.", "Use `Object.is`."),
  "no-fallthrough": bug("medium", 0.6, "The case runs on into the next one.", "End it with `break` or `return`."),
  "no-empty": bug("medium", 0.5, "An empty block hides what was meant; an empty `catch` hides errors.", "Handle the error, or say why it may be ignored."),
  "array-callback-return": bug("medium", 0.75, "The callback does not return on every way, so the result has holes.", "Return a value, or use `forEach`."),
  "require-atomic-updates": bug("medium", 0.4, "The value may have changed while this waited (race condition).", "Read it again after the `await`, or update it in one step."),
  eqeqeq: bug("low", 0.6, "`==` converts its sides before it compares.", "Use `===`."),
};

const LEVELS: Rules = { ...Object.fromEntries(Object.keys(RULES).map((name) => [name, "error" as const])), eqeqeq: ["error", "always", { null: "ignore" }] };

async function scriptFindings(scripts: readonly ReadyFile[], signal: AbortSignal): Promise<Finding[]> {
  if (scripts.length === 0) return [];
  const { lintScripts } = await import("../rules/lint-scripts.ts");
  const { messages } = await lintScripts(scripts, LEVELS, signal);
  return messages.flatMap(({ path, rule, line }) => {
    const weakness = RULES[rule];
    return weakness ? [findingOf("logic", rule, weakness, { path, line })] : [];
  });
}

/** Bugs, edge cases and races. */
export async function logic({ batch }: BranchInput, ctx: NodeContext): Promise<ReviewPatch> {
  const byModel = reviewWithModel(ctx, batch, "logic", PROMPT);
  // A rejection while the static rules still run is for the await below, not for the process.
  byModel.catch(() => undefined);
  const found = await scriptFindings(
    batch.files.filter((file) => file.fragments.length > 0),
    ctx.signal,
  );
  const { findings, isIncomplete } = await byModel;
  return { found: [...found, ...findings], incomplete: isIncomplete ? ["logic"] : [] };
}
