/** What the steps of a plan say of each other: names, order, and what they take from earlier ones. */
import { type ASTNode, parse } from "@marcbachmann/cel-js";
import { Refusal } from "../errors.ts";
import { ConditionError, parseCondition } from "../execution/condition.ts";
import type { RequestedStep } from "./submitted-plan.ts";

/** Throws INVALID_INPUT that names the place, or CIRCULAR_DEPENDENCY with the path. */
export function checkPlan(steps: readonly RequestedStep[]): void {
  const ids = new Set<string>();
  for (const [i, { id }] of steps.entries()) {
    if (ids.has(id)) throw wrong(`plan.${i}.id`, `the id ${id} is taken by an earlier step`);
    ids.add(id);
  }
  for (const [i, { id, needs, inputs, when }] of steps.entries()) {
    for (const [j, need] of needs.entries()) if (!ids.has(need)) throw wrong(`plan.${i}.needs.${j}`, `there is no step ${need}`);
    for (const [j, input] of (inputs ?? []).entries())
      if (!needs.includes(input.from)) throw wrong(`plan.${i}.inputs.${j}.from`, `${id} does not need ${input.from}: add it to needs`);
    if (when === undefined) continue;
    for (const read of readsOf(when, `plan.${i}.when`)) if (!needs.includes(read)) throw wrong(`plan.${i}.when`, `${id} does not need ${read}: add it to needs`);
  }
  const circle = findCircle(steps);
  if (circle) throw circular(circle);
}

export function circular(path: readonly string[]): Refusal {
  return new Refusal("CIRCULAR_DEPENDENCY", { message: `There is a circle: ${path.join(" → ")}.`, details: { path } });
}

/** The ids of one circle, beginning and ending with the same, or null. Depth first. */
export function findCircle(steps: readonly { readonly id: string; readonly needs: readonly string[] }[]): string[] | null {
  const needsOf = new Map(steps.map(({ id, needs }) => [id, needs]));
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (id: string): string[] | null => {
    if (done.has(id)) return null;
    const start = path.indexOf(id);
    if (start >= 0) return [...path.slice(start), id];
    path.push(id);
    for (const need of needsOf.get(id) ?? []) {
      const circle = visit(need);
      if (circle) return circle;
    }
    path.pop();
    done.add(id);
    return null;
  };
  for (const { id } of steps) {
    const circle = visit(id);
    if (circle) return circle;
  }
  return null;
}

function wrong(path: string, message: string): Refusal {
  return new Refusal("INVALID_INPUT", { message: `The body is not valid: ${path}: ${message}`, details: { issues: [{ path, message }] } });
}

const FACTS = new Set(["status", "confidence", "data"]);
/** The steps that a condition looks at. Throws INVALID_INPUT for one that is none, or that does not say which steps. */
function readsOf(when: string, path: string): Set<string> {
  try {
    parseCondition(when);
  } catch (error) {
    if (!(error instanceof ConditionError)) throw error;
    throw wrong(path, `is not a condition: ${error.message}`);
  }
  const reads = new Set<string>();
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) for (const member of node) visit(member);
    if (!isNode(node)) return;
    const fact = memberOf(node);
    const step = fact && memberOf(fact.of);
    if (fact && step && isSteps(step.of)) {
      if (!FACTS.has(fact.name)) throw wrong(path, `a step has status, confidence and data, and no ${fact.name.slice(0, 40)}`);
      reads.add(step.name);
    } else if (isSteps(node)) throw wrong(path, "name each step and what you ask of it, as in steps.review.status");
    else visit(node.args);
  };
  visit(parse(when).ast);
  return reads;
}

const isNode = (value: unknown): value is ASTNode => typeof value === "object" && value !== null && "op" in value && "args" in value;
const isSteps = (node: ASTNode): boolean => node.op === "id" && node.args === "steps";

/** `of.name` and `of["name"]`; null for anything else. */
function memberOf(node: ASTNode): { of: ASTNode; name: string } | null {
  if (node.op === ".") return { of: node.args[0], name: node.args[1] };
  if (node.op !== "[]") return null;
  const [of, key] = node.args;
  return key.op === "value" && typeof key.args === "string" ? { of, name: key.args } : null;
}
