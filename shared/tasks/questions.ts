/** Tasks that wait for their caller: asked when a command may be for several plugins, answered once, ended when nobody answers. */
import * as v from "valibot";
import type { Caller } from "../access/caller.ts";
import { sqlState, type TenantDb } from "../db/database.ts";
import { ERRORS, Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { asId, type TaskId, type TenantId } from "../ids.ts";
import type { Offer, Question } from "../planning/offers.ts";
import { vectorToBytes } from "../registry/catalogue.ts";
import { findTask } from "./read-tasks.ts";
import type { Submission } from "./submission.ts";
import type { TaskPlan } from "./task-plan.ts";

/** How long a question stands whose caller named no deadline, and how long its task may then run. */
const ASK_MS = 86_400_000;
const RUN_MS = 3_600_000;

export interface NewQuestion {
  id: TaskId;
  submission: Submission;
  route: Question & { offers: readonly Offer[] };
  traceparent: string;
  requestId: string;
  idempotency: { key: string; requestSha256: string } | null;
}

const Asked = v.object({ outcome: v.picklist(["asked", "replayed", "key_reused"]), task_id: v.string(), rings: v.array(v.string()) });

/**
 * Stores the command as a pending task: no reservation, no ring. `replayed`: the idempotency key is known, and names the task of the first submit.
 * `rings`: the endpoints that are to be told.
 */
export async function askCaller(
  db: TenantDb,
  caller: Caller,
  question: NewQuestion,
): Promise<{ outcome: "asked" | "replayed"; taskId: TaskId; rings: readonly string[] } | { outcome: "key_reused" }> {
  const { id, submission, route, idempotency } = question;
  const values = [
    caller.tenantId,
    id,
    caller.userId,
    caller.keyId,
    caller.environment,
    submission.conversation_id ?? null,
    JSON.stringify({ command: submission.command, attachments: submission.attachments }),
    route.question,
    JSON.stringify(route.offers),
    route.method,
    route.candidates[0]?.probability ?? null,
    submission.priority,
    submission.max_cost_usd?.toString() ?? null,
    submission.deadline?.toISOString() ?? null,
    ASK_MS,
    RUN_MS,
    question.traceparent,
    question.requestId,
    idempotency?.key ?? null,
    idempotency?.requestSha256 ?? null,
    route.embedding && vectorToBytes(route.embedding.vector),
    route.embedding?.model ?? null,
  ];
  const ask = async () => {
    const [row] = await db.call("SELECT * FROM ask_caller($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)", values);
    return v.parse(Asked, row);
  };
  FAILPOINT: await failpoint("ask.before_insert");
  try {
    const { outcome, task_id, rings } = await ask().catch((error: unknown) => {
      // Another submit with the same idempotency key was faster: now it is there to be found.
      if (sqlState(error) === "23505") return ask();
      throw error;
    });
    return outcome === "key_reused" ? { outcome } : { outcome, taskId: asId("task", task_id), rings };
  } catch (error) {
    // The database's answer is lost: the row itself says whether the question stands.
    if (!(error instanceof Refusal) || !(await findTask(db, caller.tenantId, id).catch(() => null))) throw error;
    return { outcome: "asked", taskId: id, rings: [] };
  }
}

const Answered = v.object({
  outcome: v.picklist(["answered", "answered_before", "not_pending", "too_late", "not_subscribed", "quota_exceeded"]),
  traceparent: v.nullable(v.string()),
  plugin: v.nullable(v.string()),
  quota_limit: v.nullable(v.number()),
});
export type Answered = v.InferOutput<typeof Answered>;

/** The command of a pending task; empty when it has been erased. */
export async function commandOf(db: TenantDb, tenantId: TenantId, id: TaskId): Promise<string> {
  const row = await db.tenant(tenantId, (tx) => tx.selectFrom("tasks").select("input").where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst());
  const parsed = v.safeParse(v.object({ input: v.object({ command: v.string() }) }), row);
  return parsed.success ? parsed.output.input.command : "";
}

/** Reserves and queues a pending task with the plan of the candidate that its caller chose, counted from 0; null when the tenant has no such task. */
export async function answerTask(db: TenantDb, tenantId: TenantId, id: TaskId, choice: { place: number; plugin: string; plan: TaskPlan }): Promise<Answered | null> {
  const [row] = await db.call("SELECT * FROM answer_task($1, $2, $3, $4, $5)", [tenantId, id, choice.place, choice.plugin, JSON.stringify(choice.plan)]);
  return row ? v.parse(Answered, row) : null;
}

const UNANSWERED = { code: "INPUT_TIMEOUT", message: ERRORS.INPUT_TIMEOUT.message, cause: "caller" };

/** Ends questions whose time is over; says how many. */
export async function endUnansweredTasks(db: Pick<TenantDb, "call">, limit: number): Promise<number> {
  const [row] = await db.call<{ count: number }>("SELECT end_unanswered_tasks($1, $2) AS count", [limit, JSON.stringify(UNANSWERED)]);
  return row?.count ?? 0;
}
