/** The journal of model calls: `started` is committed before the provider is asked, the outcome before the plugin hears of it. */
import { setTimeout as delay } from "node:timers/promises";
import type { Capability } from "../access/capability-token.ts";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import type { MeteredUsage } from "./usage.ts";

/** A call whose gateway gave no sign of life for this long is `unknown`. */
const SILENCE_MS = 15_000;
const BEAT_MS = 4_000;

export interface CallToOpen {
  id: string;
  node: string | null;
  /** Of the node's name and the request's body. */
  sha256: string;
  /** Which of several equal requests of this node, from 1. */
  occurrence: number;
  model: string;
  priceVersion: string;
  ceilingMicroUsd: bigint;
}

export interface OpenedCall {
  outcome: "proceed" | "replay" | "in_flight" | "lease_lost" | "cancelled" | "over_cost";
  call_no: number;
  /** The text of the journalled answer, for `replay`. */
  answer: unknown;
  spent_micro_usd: string;
  /** Tokens that this step had used before. */
  tokens_used: string;
}

export async function openCall(db: TenantDb, { tenant, task, lease, step, plugin }: Capability, call: CallToOpen): Promise<OpenedCall> {
  const [row] = await db.call<OpenedCall>("SELECT * FROM open_llm_call($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)", [
    tenant,
    task,
    lease,
    step,
    plugin,
    call.node,
    call.id,
    call.sha256,
    call.occurrence,
    call.model,
    call.priceVersion,
    call.ceilingMicroUsd.toString(),
    SILENCE_MS,
  ]);
  if (!row) throw new Error("open_llm_call returned no row");
  return row;
}

export interface CallOutcome {
  state: "done" | "failed";
  /** The model that answered, when it said so. */
  model: string | null;
  usage: MeteredUsage | null;
  costMicroUsd: bigint;
  providerRequestId: string | null;
  /**
   * The answer's JSON text. It is stored as a string, not as an object: jsonb would reorder the keys of a tool's input, the plugin's
   * next request would then differ from the one that is journalled, and be paid again.
   */
  answer: string | null;
  error: Record<string, unknown> | null;
}

export interface ClosedCall {
  /** `unknown`: somebody gave the call up while it ran; it is listed with what it used, and billed to nobody. */
  state: "done" | "failed" | "unknown" | "started";
  tokens_used: string;
}

/** Null when the task is gone. */
async function closeCallOnce(db: TenantDb, tenant: string, id: string, outcome: CallOutcome): Promise<ClosedCall | null> {
  const counts = outcome.usage?.counts;
  const [row] = await db.call<ClosedCall>("SELECT * FROM close_llm_call($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)", [
    tenant,
    id,
    outcome.state,
    outcome.model?.replace(/\p{Cc}/gu, "").slice(0, 256),
    outcome.usage && storableJson(outcome.usage.raw),
    counts?.input ?? 0,
    counts?.output ?? 0,
    counts ? counts.cacheWrite5m + counts.cacheWrite1h : 0,
    counts?.cacheRead ?? 0,
    outcome.costMicroUsd.toString(),
    outcome.providerRequestId,
    outcome.answer === null ? null : JSON.stringify(outcome.answer),
    outcome.error && storableJson(outcome.error),
  ]);
  return row ?? null;
}

/** jsonb cannot hold U+0000, which a server may send in a text of its own. */
function storableJson(value: Record<string, unknown>): string {
  return JSON.stringify(value).replaceAll("\\u0000", "\\ufffd");
}

const CLOSE_PAUSES_MS = [50, 150, 400, 900, 1_500, 2_000];

/**
 * Writes the outcome, and tries for about five seconds more when PostgreSQL is away: the call has been made, and an outcome that is
 * not written makes the next attempt pay for it again. Closing twice is harmless. Throws the last error.
 */
export async function closeCall(db: TenantDb, tenant: string, id: string, outcome: CallOutcome): Promise<ClosedCall | null> {
  for (const pauseMs of CLOSE_PAUSES_MS) {
    try {
      return await closeCallOnce(db, tenant, id, outcome);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      await delay(pauseMs);
    }
  }
  return closeCallOnce(db, tenant, id, outcome);
}

export interface CallToStop {
  id: string;
  reason: "cancelled" | "lease_lost";
}

/** A sign of life for these calls; returns those that must be closed. */
export function watchCalls(db: TenantDb, calls: readonly { id: string; lease: string }[]): Promise<CallToStop[]> {
  return db.call<CallToStop>("SELECT * FROM watch_llm_calls($1, $2, $3)", [calls.map((call) => call.id), calls.map((call) => call.lease), BEAT_MS]);
}

/** Whether the holder of this capability may still spend. */
export async function checkLease(db: TenantDb, { tenant, task, lease, step }: Capability): Promise<"open" | "cancelled" | "lease_lost"> {
  const [row] = await db.call<{ cancel_requested: boolean }>("SELECT cancel_requested FROM check_lease($1, $2, $3, $4)", [tenant, task, lease, step]);
  if (!row) return "lease_lost";
  return row.cancel_requested ? "cancelled" : "open";
}
