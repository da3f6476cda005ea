/** Admission: quota, reservation, row and idempotency key in one statement. */
import type { Caller } from "../access/caller.ts";
import { sqlState, type TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { asId, type TaskId } from "../ids.ts";
import { vectorToBytes } from "../registry/catalogue.ts";
import { type AdmitRow, type Admittee, admit } from "./admit-batch.ts";
import { admitPlan } from "./admit-plan.ts";
import type { Submission } from "./submission.ts";
import type { TaskPlan } from "./task-plan.ts";

const DEFAULT_DEADLINE_MS = 3_600_000;

export interface NewTask {
  id: TaskId;
  submission: Submission;
  /** The plugin that the task goes by; those of all steps are checked and reserved. */
  plugin: string;
  plan: TaskPlan;
  method: string;
  confidence: number | null;
  /** The command's vector, where routing has made one. */
  embedding: { model: string; vector: Float32Array } | null;
  traceparent: string;
  requestId: string;
  idempotency: { key: string; requestSha256: string } | null;
}

export type AdmitOutcome =
  /** `triesLeft`: of the free executions, where the tenant has not subscribed; null otherwise, and where it is not known. */
  | { outcome: "admitted" | "replayed"; taskId: TaskId; createdAt: Date; overage: boolean; triesLeft: number | null; backlog: number }
  | { outcome: "key_reused" }
  | { outcome: "not_subscribed"; plugin: string }
  | { outcome: "quota_exceeded"; plugin: string; limit: number };

/**
 * All or nothing. When the database's answer is lost, the row itself says whether the task was admitted; if that cannot be
 * read either, the caller gets a retryable 503 and its idempotency key decides.
 */
export async function admitTask(db: TenantDb, caller: Caller, task: NewTask): Promise<AdmitOutcome> {
  const { submission, embedding } = task;
  // Several steps reserve on several usage rows and go alone.
  const enter = task.plan.length === 1 ? admit : admitPlan;
  const admittee: Admittee = {
    tenant: caller.tenantId,
    id: task.id,
    user: caller.userId,
    key: caller.keyId,
    environment: caller.environment,
    conversation: submission.conversation_id ?? null,
    plugin: task.plugin,
    plan: JSON.stringify(task.plan),
    input: JSON.stringify({ command: submission.command, attachments: submission.attachments }),
    method: task.method,
    confidence: task.confidence,
    priority: submission.priority,
    max_cost: submission.max_cost_usd?.toString() ?? null,
    deadline: (submission.deadline ?? new Date(Date.now() + DEFAULT_DEADLINE_MS)).toISOString(),
    traceparent: task.traceparent,
    request: task.requestId,
    idempotency_key: task.idempotency?.key ?? null,
    request_sha256: task.idempotency?.requestSha256 ?? null,
    embedding: embedding && vectorToBytes(embedding.vector).toString("base64"),
    embedding_model: embedding?.model ?? null,
  };
  FAILPOINT: await failpoint("submit.before_admit");
  let row: AdmitRow;
  try {
    row = await enter(db, admittee);
  } catch (error) {
    // Another submit with the same idempotency key was faster: now it is there to be found.
    if (sqlState(error) === "23505") row = await enter(db, admittee);
    else if (error instanceof Refusal) {
      const createdAt = await findAdmitted(db, caller, task.id).catch(() => null);
      if (!createdAt) throw error;
      return { outcome: "admitted", taskId: task.id, createdAt, overage: false, triesLeft: null, backlog: 1 };
    } else throw error;
  }
  FAILPOINT: await failpoint("submit.after_commit");
  switch (row.outcome) {
    case "admitted":
    case "replayed":
      return {
        outcome: row.outcome,
        taskId: asId("task", row.task_id ?? ""),
        createdAt: row.created_at ?? new Date(),
        overage: row.overage,
        backlog: row.backlog,
        triesLeft: row.sandbox ? Math.max(0, (row.quota_limit ?? 0) - row.quota_used) : null,
      };
    case "quota_exceeded":
      return { outcome: "quota_exceeded", plugin: row.plugin ?? task.plugin, limit: row.quota_limit ?? 0 };
    case "not_subscribed":
      return { outcome: "not_subscribed", plugin: row.plugin ?? task.plugin };
    default:
      return { outcome: row.outcome };
  }
}

/** Also for who has tried the plugin as often as that is free. */
export function notSubscribed(plugin: string, upgradeUrl: string): Refusal {
  return new Refusal("PLUGIN_NOT_SUBSCRIBED", {
    message: `You have not subscribed to the ${plugin} plugin, and no free execution of it is left.`,
    details: { plugin, upgrade_url: upgradeUrl },
  });
}

export function quotaExceeded(plugin: string, limit: number, upgradeUrl: string): Refusal {
  return new Refusal("QUOTA_EXCEEDED", {
    message: `The ${limit} executions of ${plugin} in this month are used up.`,
    details: { plugin, quota_limit: limit, upgrade_url: upgradeUrl },
  });
}

async function findAdmitted(db: TenantDb, caller: Caller, id: TaskId): Promise<Date | null> {
  const row = await db.tenant(caller.tenantId, (tx) =>
    tx.selectFrom("tasks").select("created_at").where("tenant_id", "=", caller.tenantId).where("id", "=", id).executeTakeFirst(),
  );
  return row?.created_at ?? null;
}
