/**
 * An executor's hold on a task. The lease is renewed while the work runs, progress rides along with the renewal, and when the
 * lease is lost, or the caller cancels, the signal aborts everything that the work waits for.
 */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { TaskId, TenantId } from "../ids.ts";

export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}
export class CancelRequested extends Error {
  override readonly name = "CancelRequested";
}

export interface ProgressEvent {
  type: string;
  data: Record<string, unknown>;
  at: string;
}

export interface Lease {
  readonly token: string;
  /** Aborted with LeaseLost or CancelRequested as the reason, or with whatever `stop` was given. */
  readonly signal: AbortSignal;
  /** Queues progress; it is stored within `FLUSH_MS`, or with the settlement. */
  report(type: string, data: Record<string, unknown>): void;
  /** Hands over the progress that is not stored yet, behind what is on its way, for a write that carries it along. */
  drain(): Promise<ProgressEvent[]>;
  /** Ends the renewals and hands over the progress that is not stored yet. */
  release(): Promise<ProgressEvent[]>;
  cancel(): void;
}

export interface Hold {
  tenantId: TenantId;
  taskId: TaskId;
  token: string;
  leaseMs: number;
}

const FLUSH_MS = 200;
const MAX_QUEUED_EVENTS = 2_000;
const Renewed = v.object({ held: v.boolean(), cancel_requested: v.boolean() });

export function holdLease(db: TenantDb, { tenantId, taskId, token, leaseMs }: Hold, onProgress: () => void): Lease {
  const controller = new AbortController();
  const beatMs = Math.floor(leaseMs / 6);
  let queued: ProgressEvent[] = [];
  let renewing: Promise<void> | null = null;
  // The monotonic clock of this process: a stopped or starved process must see by itself that its time is over.
  let safeUntil = performance.now() + leaseMs * 0.9;
  let released = false;

  async function renew(): Promise<void> {
    const events = queued;
    queued = [];
    const sentAt = performance.now();
    try {
      const [row] = await db.call("SELECT held, cancel_requested FROM renew_lease($1, $2, $3, $4, $5)", [tenantId, taskId, token, leaseMs, JSON.stringify(events)]);
      const { held, cancel_requested } = v.parse(Renewed, row);
      if (!held) {
        lose();
        return;
      }
      safeUntil = sentAt + leaseMs * 0.9;
      FAILPOINT: await failpoint("lease.after_beat");
      if (events.length > 0) onProgress();
      if (cancel_requested) controller.abort(new CancelRequested());
    } catch {
      // Whether it was stored is unknown; progress may be lost, the lease may stand. The clock decides.
      if (performance.now() > safeUntil) lose();
    }
  }

  function lose(): void {
    stopTimers();
    controller.abort(new LeaseLost());
  }

  function renewOnce(): void {
    if (released || controller.signal.reason instanceof LeaseLost) return;
    if (performance.now() > safeUntil) {
      lose();
      return;
    }
    renewing ??= renew().finally(() => {
      renewing = null;
    });
  }

  const beat = setInterval(renewOnce, beatMs);
  let flush: NodeJS.Timeout | null = null;
  function stopTimers(): void {
    clearInterval(beat);
    if (flush) clearTimeout(flush);
    flush = null;
  }

  async function drain(): Promise<ProgressEvent[]> {
    await renewing;
    const rest = queued;
    queued = [];
    return rest;
  }

  return {
    token,
    signal: controller.signal,
    report(type, data) {
      if (queued.length < MAX_QUEUED_EVENTS) queued.push({ type, data, at: new Date().toISOString() });
      flush ??= setTimeout(() => {
        flush = null;
        renewOnce();
      }, FLUSH_MS);
    },
    drain,
    release() {
      released = true;
      stopTimers();
      return drain();
    },
    cancel: () => controller.abort(new CancelRequested()),
  };
}
