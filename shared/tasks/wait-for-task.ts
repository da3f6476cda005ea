/** Waits for a task to end: subscribed first, so that no end is missed, and looking itself now and then, so that no signal is needed. */
import type { TenantDb } from "../db/database.ts";
import type { TaskId, TenantId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import { findTask } from "./read-tasks.ts";
import { type FullTaskRow, isTerminal } from "./task-view.ts";

const LOOK_EVERY_MS = 2_000;

export interface Wait {
  tenantId: TenantId;
  taskId: TaskId;
  waitMs: number;
  /** Each ends the wait early: the caller hung up, or the instance drains. */
  signals: readonly AbortSignal[];
}

/** The task as it stands when it has ended or the wait is over; null when the tenant has no such task. What `begin` sends to Redis comes after the wait stands there. */
export async function waitForTask(
  { db, signals }: { db: TenantDb; signals: Signals },
  { tenantId, taskId, waitMs, signals: over }: Wait,
  begin?: () => Promise<unknown>,
): Promise<FullTaskRow | null> {
  const until = performance.now() + waitMs;
  let wake = () => {};
  let rang = false;
  const watching = signals.watchTask(taskId, () => {
    rang = true;
    wake();
  });
  const onAbort = () => wake();
  const isOver = () => over.some((signal) => signal.aborted);
  for (const signal of over) signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.all([watching, begin?.()]);
    // A task that was just rung for has not ended; looking at it would only cost a round trip.
    let task = begin ? undefined : await findTask(db, tenantId, taskId);
    for (;;) {
      if (task === null || (task && isTerminal(task.status))) return task;
      const restMs = until - performance.now();
      if (restMs <= 0 || isOver()) return task ?? (await findTask(db, tenantId, taskId));
      if (!rang) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(restMs, LOOK_EVERY_MS));
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
          if (rang || isOver()) wake();
        });
      }
      rang = false;
      task = await findTask(db, tenantId, taskId);
    }
  } finally {
    for (const signal of over) signal.removeEventListener("abort", onAbort);
    // Nobody waits for the note to go.
    watching.then((watch) => watch[Symbol.asyncDispose]()).catch(() => {});
  }
}
