/** Writes the end of a task under its lease: result, steps, usage, reservations and events in one transaction. */
import type { Redis } from "ioredis";
import { conversationIdOf } from "../conversations/conversation-id.ts";
import { whileHistoryChanges } from "../conversations/history.ts";
import type { TenantDb } from "../db/database.ts";
import type { Ring } from "../redis/streams.ts";
import { childOf, traceparentOf } from "../telemetry/trace.ts";
import type { Claim } from "./claim-task.ts";
import type { ProgressEvent } from "./lease.ts";
import { mergeSteps, type TaskOutcome } from "./merge-steps.ts";
import type { PlanEnding } from "./run-plan.ts";
import { settleRow } from "./settle-batch.ts";
import { isUnstorable, type StepRecord, stepRow, UNSTORABLE } from "./step-record.ts";
import { storableJson } from "./storable-json.ts";

type Over = Extract<PlanEnding, { kind: "ended" | "cancelled" }>;

export interface Settler {
  db: TenantDb;
  redis: Redis;
  ring: Pick<Ring, "conversation" | "webhook">;
}

/** What was settled; null: the lease is lost and nothing was written. */
export async function settleTask(settler: Settler, claim: Claim, ending: Over, events: readonly ProgressEvent[]): Promise<TaskOutcome | null> {
  try {
    return await write(settler, claim, ending, events);
  } catch (error) {
    if (!isUnstorable(error)) throw error;
    // The task must still end, with what could be stored.
    const unstorable = (record: StepRecord): StepRecord => (record.output ? { ...record, status: "failed", output: null, error: UNSTORABLE } : record);
    const fresh = ending.fresh.map(unstorable);
    const steps = ending.steps.map((record) => fresh.find(({ id }) => id === record.id) ?? record);
    return write(settler, claim, { ...ending, steps, fresh }, []);
  }
}

async function write({ db, redis, ring }: Settler, claim: Claim, { kind, steps, fresh }: Over, events: readonly ProgressEvent[]): Promise<TaskOutcome | null> {
  const { tenantId, conversationId, userId } = claim;
  const outcome: TaskOutcome = kind === "cancelled" ? { status: "cancelled", result: null, error: null } : mergeSteps(claim, steps);
  const settle = () =>
    settleRow(db, {
      tenant: tenantId,
      id: claim.taskId,
      lease: claim.leaseToken,
      in_conversation: conversationId !== null,
      status: outcome.status,
      result: storableJson(outcome.result),
      error: storableJson(outcome.error),
      steps: storableJson(fresh.map((record) => stepRow(claim, record))),
      events: storableJson(events),
    });
  const { settled, overflowed, rings } = await whileHistoryChanges(redis, tenantId, conversationId, userId, settle);
  if (overflowed && conversationId !== null && userId !== null)
    await ring.conversation(conversationIdOf(tenantId, userId, conversationId), childOf(traceparentOf(claim.traceparent)));
  await Promise.all(rings.map((id) => ring.webhook(id, childOf(traceparentOf(claim.traceparent)))));
  return settled ? outcome : null;
}

/** Gives the task back to the queue, with the progress that is not stored yet. False: the lease is lost. */
export async function handBack(db: TenantDb, claim: Claim, delayMs: number, events: readonly ProgressEvent[]): Promise<boolean> {
  // Ahead of it, since afterwards the lease is nobody's. What is lost with a crash between the two is said again by the next attempt.
  if (events.length > 0) await db.call("SELECT held FROM append_progress($1, $2, $3, $4)", [claim.tenantId, claim.taskId, claim.leaseToken, storableJson(events)]).catch(() => {});
  const [row] = await db.call<{ handed_back: boolean }>("SELECT hand_back_task($1, $2, $3, $4) AS handed_back", [
    claim.tenantId,
    claim.taskId,
    claim.leaseToken,
    Math.round(delayMs),
  ]);
  return row?.handed_back ?? false;
}
