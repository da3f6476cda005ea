/** A task as the outside sees it. */
import * as v from "valibot";
import { publicId } from "../ids.ts";
import { formatUsd } from "../money.ts";
import { ArtifactRef, Warning } from "../sdk/src/envelopes.ts";

export const TASK_STATUSES = ["pending", "queued", "running", "success", "partial", "failed", "cancelled"] as const;
export const TaskStatus = v.picklist(TASK_STATUSES);
export type TaskStatus = v.InferOutput<typeof TaskStatus>;
const TERMINAL: ReadonlySet<string> = new Set(["success", "partial", "failed", "cancelled"]);
export const isTerminal = (status: string): boolean => TERMINAL.has(status);

export const ROUTING_METHODS = ["explicit", "cache", "embedding", "llm_fallback", "keyword", "clarified"] as const;

/** What settling stores in `tasks.result`. */
export const StoredResult = v.object({
  result: v.string(),
  data: v.nullable(v.record(v.string(), v.unknown())),
  artifacts: v.array(ArtifactRef),
  confidence: v.number(),
  next_steps: v.array(v.string()),
  warnings: v.array(Warning),
  /** The plugin speaks an older envelope than the platform. */
  deprecation_warning: v.optional(v.nullable(v.string()), null),
  execution_meta: v.object({
    latency_seconds: v.number(),
    agents_invoked: v.number(),
    model_used: v.nullable(v.string()),
    budget_exceeded: v.boolean(),
  }),
});
export type StoredResult = v.InferOutput<typeof StoredResult>;

export const StoredError = v.object({
  code: v.string(),
  message: v.string(),
  cause: v.picklist(["caller", "plugin", "upstream", "platform"]),
  /** When it may pass by itself: after how long another try makes sense. */
  retry_after_seconds: v.optional(v.number()),
});
export type StoredError = v.InferOutput<typeof StoredError>;

const Time = v.pipe(v.string(), v.isoTimestamp());

/** The 202 of a submit, and an entry of the list. */
export const TaskSummary = v.strictObject({
  task_id: v.string(),
  status: TaskStatus,
  plugin: v.nullable(v.string()),
  routing: v.strictObject({ method: v.picklist(ROUTING_METHODS), confidence: v.nullable(v.number()) }),
  created_at: Time,
  started_at: v.nullable(Time),
  completed_at: v.nullable(Time),
});

export const TaskView = v.strictObject({
  ...TaskSummary.entries,
  result: v.nullable(v.string()),
  data: v.nullable(v.record(v.string(), v.unknown())),
  artifacts: v.array(v.strictObject({ ...ArtifactRef.entries, url: v.string() })),
  confidence: v.nullable(v.number()),
  next_steps: v.array(v.string()),
  warnings: v.array(Warning),
  deprecation_warning: v.nullable(v.string()),
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
});
export type TaskRow = v.InferOutput<typeof TaskRow>;

export const FullTaskRow = v.object({
  ...TaskRow.entries,
  result: v.nullable(StoredResult),
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
  };
}

export function taskView(row: FullTaskRow): v.InferOutput<typeof TaskView> {
  const summary = taskSummary(row);
  const { result } = row;
  return {
    ...summary,
    result: result?.result ?? null,
    data: result?.data ?? null,
    artifacts: (result?.artifacts ?? []).map((artifact) => ({ ...artifact, url: `/v1/tasks/${summary.task_id}/artifacts/${encodeURIComponent(artifact.name)}` })),
    confidence: result?.confidence ?? null,
    next_steps: result?.next_steps ?? [],
    warnings: result?.warnings ?? [],
    deprecation_warning: result?.deprecation_warning ?? null,
    error: row.error,
    execution_meta: isTerminal(row.status)
      ? {
          tokens_used: row.tokens_used,
          cost_estimate_usd: formatUsd(row.cost_micro_usd),
          latency_seconds: result?.execution_meta.latency_seconds ?? 0,
          agents_invoked: result?.execution_meta.agents_invoked ?? 0,
          model_used: result?.execution_meta.model_used ?? null,
          routing_method: row.routing_method,
          budget_exceeded: result?.execution_meta.budget_exceeded ?? false,
          attempts: row.attempt,
        }
      : null,
  };
}
