/** The `when` of a plan's step: a CEL expression over `steps.<id>.{status, confidence, data}` of the steps before it. */
import vm from "node:vm";
import { type ASTNode, Environment } from "@marcbachmann/cel-js";

/** Says what is wrong with a condition, in words for whoever wrote it. */
export class ConditionError extends Error {
  override readonly name = "ConditionError";
}

/** What a condition may look at of one step. */
export interface StepFacts {
  status: string;
  confidence: number;
  data: unknown;
}

export interface Condition {
  /** Throws ConditionError: a place that is not there, a type that does not fit, or a search that takes too long. */
  isTrue(steps: Readonly<Record<string, StepFacts>>): boolean;
}

export const MAX_CONDITION_LENGTH = 500;
/** Of the processor's time. Real ones take microseconds; one that searches lists in lists would hold up every other task of this process. */
const MAX_MS = 100;
/** The limit is kept by the clock on the wall, which also runs while others have the processor: then it is tried again. */
const MAX_TRIES = 20;

const environment = new Environment({
  limits: { maxAstNodes: 100, maxDepth: 20, maxListElements: 50, maxMapEntries: 20, maxCallArguments: 5 },
}).registerVariable("steps", "map");

/** These can build a value that doubles at each turn, which is over memory's limit before the clock's. */
const BUILDERS = new Set(["bind", "map", "join"]);

/** Throws ConditionError when the text is no condition. */
export function parseCondition(text: string): Condition {
  if (text.length > MAX_CONDITION_LENGTH) throw new ConditionError(`a condition has at most ${MAX_CONDITION_LENGTH} characters`);
  const program = explained(() => environment.parse(text));
  const builder = callsOf(program.ast).find((name) => BUILDERS.has(name));
  if (builder) throw new ConditionError(`${builder}() is not available in conditions`);
  const { valid, type, error } = program.check();
  if (!valid) throw new ConditionError(firstLine(error));
  if (type !== "bool" && type !== "dyn") throw new ConditionError(`a condition is true or false, and this is of type ${type}`);
  return {
    isTrue(steps) {
      const value = explained(() => withinTime(() => program({ steps }) as unknown));
      if (typeof value !== "boolean") throw new ConditionError("the condition is neither true nor false");
      return value;
    },
  };
}

function withinTime(run: () => unknown): unknown {
  const before = process.cpuUsage();
  for (let tries = 1; ; tries += 1) {
    try {
      return vm.runInNewContext("run()", { run }, { timeout: MAX_MS });
    } catch (error) {
      const { user, system } = process.cpuUsage(before);
      if (!isTimeout(error)) throw error;
      if (tries === MAX_TRIES || user + system > MAX_MS * 1_000) throw new ConditionError("the condition takes too long");
    }
  }
}

/** Made in the other context, so it is no Error of this one. */
function isTimeout(error: unknown): boolean {
  return typeof error === "object" && error !== null && "code" in error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
}

function callsOf(node: unknown): string[] {
  if (Array.isArray(node)) return node.flatMap(callsOf);
  if (typeof node !== "object" || node === null || !("op" in node && "args" in node)) return [];
  const { op, args } = node as Pick<ASTNode, "op" | "args">;
  const own = (op === "call" || op === "rcall") && Array.isArray(args) ? [String(args[0])] : [];
  return [...own, ...callsOf(args)];
}

function explained<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof ConditionError) throw error;
    throw new ConditionError(firstLine(error), { cause: error });
  }
}

/** The library draws a picture of the place below its message. */
function firstLine(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "").slice(0, 200) : "it cannot be evaluated";
}
