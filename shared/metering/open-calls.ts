/**
 * The model calls that this process has open, so that each can be closed the moment its task is cancelled or its lease is lost. Redis
 * says so at once; PostgreSQL is asked several times a second for all open calls in one statement, which is also their sign of life.
 */
import type { TenantDb } from "../db/database.ts";
import type { Signals } from "../redis/signals.ts";
import { watchCalls } from "./llm-journal.ts";

/** A cancel must reach the provider within a second, also without Redis. */
const WATCH_MS = 700;

const WHY = {
  cancelled: "The task was cancelled.",
  lease_lost: "Another executor has the task, or it is over.",
  hung_up: "The plugin closed its connection, or this gateway is stopping.",
} as const;

/** Why a call was closed before the provider had answered. */
export class CallStopped extends Error {
  override readonly name = "CallStopped";
  readonly reason: keyof typeof WHY;
  constructor(reason: keyof typeof WHY) {
    super(WHY[reason]);
    this.reason = reason;
  }
}

export interface OpenCall extends Disposable {
  /** Aborts with a CallStopped. */
  signal: AbortSignal;
}

interface Watched {
  task: string;
  lease: string;
  stop: AbortController;
}

class OpenCalls {
  readonly #calls = new Map<string, Watched>();
  readonly #db: TenantDb;
  readonly #signals: Signals;
  #timer: NodeJS.Timeout | undefined;
  #isAsking = false;
  #isSubscribed = false;

  constructor(db: TenantDb, signals: Signals) {
    this.#db = db;
    this.#signals = signals;
  }

  add(id: string, task: string, lease: string): OpenCall {
    const stop = new AbortController();
    this.#calls.set(id, { task, lease, stop });
    this.#timer ??= setInterval(() => void this.#ask(), WATCH_MS).unref();
    this.#subscribe();
    return {
      signal: stop.signal,
      [Symbol.dispose]: () => {
        this.#calls.delete(id);
        if (this.#calls.size > 0) return;
        clearInterval(this.#timer);
        this.#timer = undefined;
      },
    };
  }

  /** Once per process, and not waited for: until it stands, and whenever it is gone, the timer does the work. */
  #subscribe(): void {
    if (this.#isSubscribed) return;
    this.#isSubscribed = true;
    const onCancel = (task: string) => {
      for (const call of this.#calls.values()) if (call.task === task) call.stop.abort(new CallStopped("cancelled"));
    };
    this.#signals.watchCancels(onCancel).catch(() => {
      this.#isSubscribed = false;
    });
  }

  async #ask(): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      const open = [...this.#calls].map(([id, { lease }]) => ({ id, lease }));
      for (const { id, reason } of await watchCalls(this.#db, open)) this.#calls.get(id)?.stop.abort(new CallStopped(reason));
    } catch {
      // Without PostgreSQL nobody can take the task over either; the next round asks again.
    } finally {
      this.#isAsking = false;
    }
  }
}

const perProcess = new WeakMap<Signals, OpenCalls>();

/** The open calls of the process that holds these connections. */
export function openCalls(db: TenantDb, signals: Signals): OpenCalls {
  let present = perProcess.get(signals);
  if (!present) {
    present = new OpenCalls(db, signals);
    perProcess.set(signals, present);
  }
  return present;
}
