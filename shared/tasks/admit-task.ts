/** Admission: quota, reservation, row and idempotency key in one statement. */
import * as v from "valibot";
import type { Caller } from "../access/caller.ts";
import { sqlState, type TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { asId, type TaskId } from "../ids.ts";
import type { Submission } from "./submission.ts";
import { singleStepPlan } from "./task-plan.ts";

const DEFAULT_DEADLINE_MS = 3_600_000;

export interface NewTask {
  id: TaskId;
  submission: Submission;
  plugin: string;
  version: string;
  method: string;
  confidence: number | null;
  traceparent: string;
  requestId: string;
  idempotency: { key: string; requestSha256: string } | null;
}

export type AdmitOutcome =
  | { outcome: "admitted" | "replayed"; taskId: TaskId; createdAt: Date; overage: boolean }
  | { outcome: "key_reused" }
  | { outcome: "not_subscribed" }
  | { outcome: "quota_exceeded"; limit: number };

const Row = v.object({
  outcome: v.picklist(["admitted", "replayed", "key_reused", "not_subscribed", "quota_exceeded"]),
  task_id: v.nullable(v.string()),
  created_at: v.nullable(v.date()),
  quota_limit: v.nullable(v.number()),
  overage: v.boolean(),
});

const STATEMENT = "SELECT * FROM admit_task($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

/**
 * All or nothing. When the database's answer is lost, the row itself says whether the task was admitted; if that cannot be
 * read either, the caller gets a retryable 503 and its idempotency key decides.
 */
export async function admitTask(db: TenantDb, caller: Caller, task: NewTask): Promise<AdmitOutcome> {
  const { submission } = task;
  const values = [
    caller.tenantId,
    task.id,
    caller.userId,
    caller.keyId,
    caller.environment,
    submission.conversation_id ?? null,
    task.plugin,
    JSON.stringify(singleStepPlan(task.plugin, task.version)),
    JSON.stringify({ command: submission.command, attachments: submission.attachments }),
    task.method,
    task.confidence,
    submission.priority,
    submission.max_cost_usd?.toString() ?? null,
    submission.deadline ?? new Date(Date.now() + DEFAULT_DEADLINE_MS),
    task.traceparent,
    task.requestId,
    task.idempotency?.key ?? null,
    task.idempotency?.requestSha256 ?? null,
  ];
  FAILPOINT: await failpoint("submit.before_admit");
  let raw: object | undefined;
  try {
    [raw] = await db.call(STATEMENT, values);
  } catch (error) {
    if (sqlState(error) === "23505") [raw] = await db.call(STATEMENT, values);
    else if (error instanceof Refusal) {
      const createdAt = await findAdmitted(db, caller, task.id).catch(() => null);
      if (!createdAt) throw error;
      return { outcome: "admitted", taskId: task.id, createdAt, overage: false };
    } else throw error;
  }
  FAILPOINT: await failpoint("submit.after_commit");
  const row = v.parse(Row, raw);
  switch (row.outcome) {
    case "admitted":
    case "replayed":
      return { outcome: row.outcome, taskId: asId("task", row.task_id ?? ""), createdAt: row.created_at ?? new Date(), overage: row.overage };
    case "quota_exceeded":
      return { outcome: "quota_exceeded", limit: row.quota_limit ?? 0 };
    default:
      return { outcome: row.outcome };
  }
}

async function findAdmitted(db: TenantDb, caller: Caller, id: TaskId): Promise<Date | null> {
  const row = await db.tenant(caller.tenantId, (tx) => tx.selectFrom("tasks").select("created_at").where("tenant_id", "=", caller.tenantId).where("id", "=", id).executeTakeFirst());
  return row?.created_at ?? null;
}
