/** A task as the outside sees it. */
import * as v from "valibot";
import { publicId } from "../ids.ts";
import { formatUsd } from "../money.ts";
import { ArtifactRef, Warning } from "../sdk/src/envelopes.ts";
import { PlanStep } from "./task-plan.ts";

export const TASK_STATUSES = ["pending", "queued", "running", "success", "partial", "failed", "cancelled"] as const;
export const TaskStatus = v.picklist(TASK_STATUSES);
export type TaskStatus = v.InferOutput<typeof TaskStatus>;
const TERMINAL: ReadonlySet<string> = new Set(["success", "partial", "failed", "cancelled"]);
export const isTerminal = (status: string): boolean => TERMINAL.has(status);

export const ROUTING_METHODS = ["explicit", "cache", "embedding", "llm_fallback", "keyword", "clarified"] as const;

/** How a step of a plan stands; `skipped`: its condition was false, or it needs one that was skipped. */
export const STEP_STATUSES = ["queued", "running", "success", "partial", "failed", "cancelled", "skipped"] as const;
/** Those in which a step has ended. */
export const StepStatus = v.picklist(["success", "partial", "failed", "cancelled", "skipped"]);
export type StepStatus = v.InferOutput<typeof StepStatus>;

/** Where a plan has several steps, what one of them gave says so. */
const ofStep = { step: v.optional(v.string()) };

/** What one step gave, in `task_steps.output`, or all of a task together. */
export const StoredResult = v.object({
  result: v.string(),
  data: v.nullable(v.record(v.string(), v.unknown())),
  artifacts: v.array(v.object({ ...ArtifactRef.entries, ...ofStep })),
  confidence: v.number(),
  next_steps: v.array(v.string()),
  warnings: v.array(v.object({ ...Warning.entries, ...ofStep })),
  /** The plugin speaks an older envelope than the platform, or is on its way out. */
  deprecation_warning: v.optional(v.nullable(v.string())),
  migration_guide_url: v.optional(v.nullable(v.string())),
  execution_meta: v.object({
    latency_seconds: v.number(),
    agents_invoked: v.number(),
    model_used: v.nullable(v.string()),
    budget_exceeded: v.boolean(),
  }),
});
export type StoredResult = v.InferOutput<typeof StoredResult>;

/** In `tasks.result`: what the plugins gave. Where they gave nothing, at most that one of them is on its way out. */
const TaskResult = v.partial(StoredResult);
export type TaskResult = v.InferOutput<typeof TaskResult>;

export const StoredError = v.object({
  code: v.string(),
  message: v.string(),
  cause: v.picklist(["caller", "plugin", "upstream", "platform"]),
  /** When it may pass by itself: after how long another try makes sense. */
  retry_after_seconds: v.optional(v.number()),
});
export type StoredError = v.InferOutput<typeof StoredError>;

const Time = v.pipe(v.string(), v.isoTimestamp());

/** What the caller is asked while the task is `pending`. */
export const InputRequest = v.object({
  question: v.string(),
  candidates: v.array(
    v.strictObject({
      /** Null: every part of the command to a plugin of its own, as `parts` says. */
      plugin: v.nullable(v.string()),
      /** Of all steps that would run, in their order: also what the plugin builds on. */
      plugins: v.optional(v.array(v.string())),
      parts: v.optional(v.array(v.string())),
      description: v.string(),
      confidence: v.number(),
      /** To all of `plugins`. */
      subscribed: v.boolean(),
    }),
  ),
  answer_by: Time,
});

/** The 202 of a submit, and an entry of the list. */
export const TaskSummary = v.strictObject({
  task_id: v.string(),
  status: TaskStatus,
  plugin: v.nullable(v.string()),
  routing: v.strictObject({ method: v.picklist(ROUTING_METHODS), confidence: v.nullable(v.number()) }),
  created_at: Time,
  started_at: v.nullable(Time),
  completed_at: v.nullable(Time),
  input_request: v.nullable(InputRequest),
});

export const StepView = v.strictObject({
  id: v.string(),
  plugin: v.string(),
  version: v.string(),
  status: v.picklist(STEP_STATUSES),
  error: v.nullable(StoredError),
  /** Null: it has not ended, or its plugin was never called. */
  latency_ms: v.nullable(v.number()),
  confidence: v.nullable(v.number()),
});
export type StepView = v.InferOutput<typeof StepView>;

export const TaskView = v.strictObject({
  ...TaskSummary.entries,
  steps: v.array(StepView),
  result: v.nullable(v.string()),
  data: v.nullable(v.record(v.string(), v.unknown())),
  artifacts: v.array(v.strictObject({ ...ArtifactRef.entries, ...ofStep, url: v.string() })),
  confidence: v.nullable(v.number()),
  next_steps: v.array(v.string()),
  warnings: v.array(v.strictObject({ ...Warning.entries, ...ofStep })),
  deprecation_warning: v.nullable(v.string()),
  migration_guide_url: v.nullable(v.string()),
  error: v.nullable(StoredError),
  execution_meta: v.nullable(
    v.strictObject({
      tokens_used: v.number(),
      cost_estimate_usd: v.string(),
      latency_seconds: v.number(),
      agents_invoked: v.number(),
      model_used: v.nullable(v.string()),
      routing_method: v.string(),
      budget_exceeded: v.boolean(),
      attempts: v.number(),
    }),
  ),
});

export const TaskRow = v.object({
  id: v.string(),
  plugin_name: v.nullable(v.string()),
  status: TaskStatus,
  routing_method: v.picklist(ROUTING_METHODS),
  routing_confidence: v.nullable(v.number()),
  created_at: v.date(),
  started_at: v.nullable(v.date()),
  completed_at: v.nullable(v.date()),
  /** Stays when the question is answered, so that the same answer may come twice. */
  input_request: v.optional(v.nullable(InputRequest)),
});
export type TaskRow = v.InferOutput<typeof TaskRow>;

const EndedStep = v.object({ id: v.string(), status: StepStatus, error: v.nullable(StoredError), latency_ms: v.nullable(v.number()), confidence: v.nullable(v.number()) });

export const FullTaskRow = v.object({
  ...TaskRow.entries,
  /** Empty while nobody knows which plugin it is for. */
  plan: v.array(PlanStep),
  /** Of a plan of several steps, those that have ended; of one step the task says it all. */
  ended_steps: v.nullable(v.array(EndedStep)),
  result: v.nullable(TaskResult),
  error: v.nullable(StoredError),
  tokens_used: v.pipe(
    v.string(),
    v.transform((text) => Number(text)),
  ),
  cost_micro_usd: v.pipe(
    v.string(),
    v.transform((text) => BigInt(text)),
  ),
  attempt: v.number(),
});
export type FullTaskRow = v.InferOutput<typeof FullTaskRow>;

export function taskSummary(row: TaskRow): v.InferOutput<typeof TaskSummary> {
  return {
    task_id: publicId("task", row.id),
    status: row.status,
    plugin: row.plugin_name,
    routing: { method: row.routing_method, confidence: row.routing_confidence === null ? null : Math.round(row.routing_confidence * 1000) / 1000 },
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
    completed_at: row.completed_at?.toISOString() ?? null,
    input_request: row.status === "pending" ? (row.input_request ?? null) : null,
  };
}

/** Follows from the method, so no row needs to hold it. */
const ROUTED_BY_KEYWORD: Warning = {
  code: "ROUTED_BY_KEYWORD",
  message: "The embedding service did not answer, so the plugin was found by keywords. Name it in `plugin` if it is not the one you meant.",
};

export function taskView(row: FullTaskRow): v.InferOutput<typeof TaskView> {
  const summary = taskSummary(row);
  const { result } = row;
  return {
    ...summary,
    result: result?.result ?? null,
    data: result?.data ?? null,
    steps: stepViews(row),
    artifacts: (result?.artifacts ?? []).map((artifact) => ({ ...artifact, url: artifactUrl(summary.task_id, artifact) })),
    confidence: result?.confidence ?? null,
    next_steps: result?.next_steps ?? [],
    warnings: [...(row.routing_method === "keyword" ? [ROUTED_BY_KEYWORD] : []), ...(result?.warnings ?? [])],
    deprecation_warning: result?.deprecation_warning ?? null,
    migration_guide_url: result?.migration_guide_url ?? null,
    error: row.error,
    execution_meta: isTerminal(row.status)
      ? {
          tokens_used: row.tokens_used,
          cost_estimate_usd: formatUsd(row.cost_micro_usd),
          latency_seconds: result?.execution_meta?.latency_seconds ?? 0,
          agents_invoked: result?.execution_meta?.agents_invoked ?? 0,
          model_used: result?.execution_meta?.model_used ?? null,
          routing_method: row.routing_method,
          budget_exceeded: result?.execution_meta?.budget_exceeded ?? false,
          attempts: row.attempt,
        }
      : null,
  };
}

function artifactUrl(taskId: string, { name, step }: { name: string; step?: string }): string {
  return `/v1/tasks/${taskId}/artifacts/${encodeURIComponent(name)}${step === undefined ? "" : `?step=${encodeURIComponent(step)}`}`;
}

function stepViews(row: FullTaskRow): StepView[] {
  const { plan, result } = row;
  const isOver = isTerminal(row.status);
  const ended = new Map((row.ended_steps ?? []).map((step) => [step.id, step]));
  return plan.map(({ id, plugin, version, needs }): StepView => {
    const step = { id, plugin, version, error: null, latency_ms: null, confidence: null };
    const end = ended.get(id);
    if (end) return { ...step, ...end };
    if (plan.length === 1 && v.is(StepStatus, row.status))
      return {
        ...step,
        status: row.status,
        error: row.error,
        latency_ms: result?.execution_meta ? Math.round(result.execution_meta.latency_seconds * 1000) : null,
        confidence: result?.confidence ?? null,
      };
    // Of a task that was ended from outside, what had not ended by itself was stopped or never begun.
    if (isOver) return { ...step, status: "cancelled" };
    return { ...step, status: row.status === "running" && needs.every((need) => ended.has(need)) ? "running" : "queued" };
  });
}
