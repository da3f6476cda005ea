/**
 * A gateway's hold on a step that one plugin has another one do. It lives under the executor's lease: when the task, the parent step or this hold
 * is over, or the caller cancels, the signal aborts. Redis says so at once; PostgreSQL is asked every second, which is also the sign of life.
 */
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import type { TenantDb } from "../db/database.ts";
import type { Signals } from "../redis/signals.ts";
import { CancelRequested, type Lease, LeaseLost, type ProgressEvent } from "./lease.ts";

const WATCH_MS = 1_000;
/** Without a sign of life for this long another gateway may begin the step again; this one must have stopped before. */
export const SILENCE_MS = 15_000;
const SURE_FOR_MS = SILENCE_MS - 5_000;
const MAX_QUEUED_EVENTS = 500;

const Watched = v.object({ held: v.boolean(), cancel_requested: v.boolean() });

export interface ChainedHold {
  capability: Capability;
  step: string;
  holder: string;
}

export async function holdChainedStep(db: TenantDb, signals: Signals, { capability, step, holder }: ChainedHold): Promise<Lease & AsyncDisposable> {
  const { tenant, task, lease: token } = capability;
  const controller = new AbortController();
  let queued: ProgressEvent[] = [];
  let sureUntil = performance.now() + SURE_FOR_MS;
  let asking: Promise<void> | null = null;

  async function ask(): Promise<void> {
    const events = queued;
    queued = [];
    const askedAt = performance.now();
    try {
      const [row] = await db.call("SELECT held, cancel_requested FROM watch_chained_step($1, $2, $3, $4, $5, $6)", [tenant, task, token, capability.step, step, holder]);
      const { held, cancel_requested } = v.parse(Watched, row);
      if (!held) return controller.abort(new LeaseLost());
      if (cancel_requested) return controller.abort(new CancelRequested());
      sureUntil = askedAt + SURE_FOR_MS;
      if (events.length === 0) return;
      await db.call("SELECT held FROM append_progress($1, $2, $3, $4, $5)", [tenant, task, token, JSON.stringify(events), step]);
      await signals.taskProgressed(task);
    } catch {
      // Progress may be lost; whether the hold stands, the clock decides.
      if (performance.now() > sureUntil) controller.abort(new LeaseLost());
    }
  }
  const timer = setInterval(() => {
    asking ??= ask().finally(() => {
      asking = null;
    });
  }, WATCH_MS);
  const cancels = await signals.watchCancels((id) => {
    if (id === task) controller.abort(new CancelRequested());
  });
  async function drain(): Promise<ProgressEvent[]> {
    await asking;
    const rest = queued;
    queued = [];
    return rest;
  }
  return {
    token,
    signal: controller.signal,
    report(type, data) {
      if (queued.length < MAX_QUEUED_EVENTS) queued.push({ type, data: { step, ...data }, at: new Date().toISOString() });
    },
    drain,
    release() {
      clearInterval(timer);
      return drain();
    },
    cancel: () => controller.abort(new CancelRequested()),
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await cancels[Symbol.asyncDispose]();
    },
  };
}
