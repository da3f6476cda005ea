/** What a task comes to when its steps have ended: of one step exactly what that gave, of several their parts under one roof. */
import type { StoredError, StoredResult, TaskResult } from "../tasks/task-view.ts";
import type { Claim } from "./claim-task.ts";
import { withEnding } from "./plugin-ending.ts";
import { hasSucceeded, type StepRecord } from "./step-record.ts";

export interface TaskOutcome {
  status: "success" | "partial" | "failed" | "cancelled";
  result: TaskResult | null;
  error: StoredError | null;
}

/** Of the merged result; the parts that are over it are left out one by one, with a warning. Each plugin's own limit is lower. */
const MAX_MERGED_CHARS = 16 * 1024 * 1024;

/** `steps`: in the plan's order, each with its record. */
export function mergeSteps(claim: Pick<Claim, "steps">, steps: readonly StepRecord[]): TaskOutcome {
  const { steps: plan } = claim;
  const outcome = merged(claim, steps);
  // A task that failed without an answer has this to say all the same.
  return plan.every(({ ending }) => ending === null)
    ? outcome
    : { ...outcome, result: plan.reduce<TaskResult>((result, step) => withEnding(result, step, plan.length === 1 ? undefined : step.id), outcome.result ?? {}) };
}

function merged({ steps: plan }: Pick<Claim, "steps">, steps: readonly StepRecord[]): TaskOutcome {
  const [first] = steps;
  if (plan.length === 1 && first && first.status !== "skipped") return { status: first.status, result: first.output, error: first.error };

  const failed = steps.filter(({ status }) => status === "failed");
  const succeeded = steps.filter(hasSucceeded);
  if (failed.length > 0 && succeeded.length === 0) {
    const error = (failed.find((step) => step.error?.code !== "DEPENDENCY_FAILED") ?? failed[0])?.error ?? null;
    return { status: "failed", result: null, error };
  }
  const isWhole = failed.length === 0 && succeeded.every(({ status }) => status === "success");
  return { status: isWhole ? "success" : "partial", result: mergedResult(plan, steps), error: null };
}

function mergedResult(plan: Claim["steps"], steps: readonly StepRecord[]): StoredResult {
  const warnings: StoredResult["warnings"] = [];
  const texts: string[] = [];
  const data: [id: string, part: unknown][] = [];
  let room = MAX_MERGED_CHARS;
  for (const { id, plugin, status, output, error } of steps) {
    const size = output ? output.result.length + JSON.stringify(output.data).length : 0;
    const fits = size <= room;
    if (fits) room -= size;
    else warnings.push({ code: "RESULT_TRUNCATED", message: "This step's result is left out: all together are too large.", step: id });
    if (output?.result && fits) texts.push(`## ${id} (${plugin})\n\n${output.result}`);
    data.push([id, { plugin, status, data: fits ? (output?.data ?? null) : null, confidence: output?.confidence ?? null }]);
    if (error) warnings.push({ code: "DEPENDENCY_FAILED", message: `Step ${id} failed: ${error.message}`.slice(0, 2000), step: id });
  }
  const outputs = steps.flatMap(({ id, output }) => (output ? [{ step: id, output }] : []));
  const successes = steps.filter(hasSucceeded).flatMap(({ output }) => output ?? []);
  const models = new Set(outputs.flatMap(({ output }) => output.execution_meta.model_used ?? []));
  return {
    result: texts.join("\n\n") || "There was nothing to do: the condition of every step was false.",
    data: { steps: Object.fromEntries(data) },
    artifacts: outputs.flatMap(({ step, output }) => output.artifacts.map((artifact) => ({ ...artifact, step }))),
    confidence: successes.reduce((least, { confidence }) => Math.min(least, confidence), 1),
    next_steps: outputs.flatMap(({ output }) => output.next_steps),
    warnings: [...warnings, ...outputs.flatMap(({ step, output }) => output.warnings.map((warning) => ({ ...warning, step })))],
    migration_guide_url: outputs.find(({ output }) => output.migration_guide_url)?.output.migration_guide_url ?? null,
    deprecation_warning: [...new Set(outputs.flatMap(({ output }) => output.deprecation_warning ?? []))].join(" ") || null,
    execution_meta: {
      latency_seconds: longestWaySeconds(plan, steps),
      agents_invoked: outputs.reduce((sum, { output }) => sum + output.execution_meta.agents_invoked, 0),
      model_used: models.size === 0 ? null : [...models].join(", "),
      budget_exceeded: outputs.some(({ output }) => output.execution_meta.budget_exceeded),
    },
  };
}

/** Steps that ran side by side took as long as the slower one. */
function longestWaySeconds(plan: Claim["steps"], steps: readonly StepRecord[]): number {
  const latency = new Map(steps.map(({ id, latencyMs }) => [id, latencyMs ?? 0]));
  const ends = new Map<string, number>();
  const endOf = (id: string): number => {
    const known = ends.get(id);
    if (known !== undefined) return known;
    // Of a plan that goes in a circle, no step has run.
    ends.set(id, 0);
    const end = Math.max(0, ...(plan.find((step) => step.id === id)?.needs ?? []).map(endOf)) + (latency.get(id) ?? 0);
    ends.set(id, end);
    return end;
  };
  return Math.max(0, ...plan.map(({ id }) => endOf(id))) / 1000;
}
