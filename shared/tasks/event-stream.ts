/** A task's events as Server-Sent Events. What is sent comes from PostgreSQL; Redis only says when to look. */
import type { TenantDb } from "../db/database.ts";
import type { TaskId, TenantId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import { readTaskEvents, type TaskEvent } from "./read-tasks.ts";
import { isTerminal } from "./task-view.ts";

const LOOK_EVERY_MS = 2_000;
const COMMENT_EVERY_MS = 15_000;
const PAGE = 500;
const encoder = new TextEncoder();

export interface EventStreamRequest {
  tenantId: TenantId;
  taskId: TaskId;
  afterSeq: number;
  signal: AbortSignal;
}

/** Ends after the task's last event, or when the signal aborts; a client that comes back resumes where it was. */
export function streamTaskEvents({ db, signals }: { db: TenantDb; signals: Signals }, { tenantId, taskId, afterSeq, signal }: EventStreamRequest): ReadableStream<Uint8Array> {
  const hangUp = new AbortController();
  const over = AbortSignal.any([signal, hangUp.signal]);
  return new ReadableStream({
    async start(controller) {
      let wake = () => {};
      let rang = true;
      const watch = await signals.watchTask(taskId, () => {
        rang = true;
        wake();
      });
      over.addEventListener("abort", () => wake(), { once: true });
      try {
        let seq = afterSeq;
        let saidAt = performance.now();
        controller.enqueue(encoder.encode("retry: 1000\n\n"));
        while (!over.aborted) {
          rang = false;
          const page = await readTaskEvents(db, tenantId, taskId, seq, PAGE);
          if (!page) break;
          for (const event of page.events) controller.enqueue(encoder.encode(frame(event)));
          seq = page.events.at(-1)?.seq ?? seq;
          if (page.events.length === PAGE) continue;
          if (isTerminal(page.status)) break;
          if (page.events.length > 0) saidAt = performance.now();
          else if (performance.now() - saidAt > COMMENT_EVERY_MS) {
            controller.enqueue(encoder.encode(": still here\n\n"));
            saidAt = performance.now();
          }
          if (!rang && !over.aborted) {
            await new Promise<void>((resolve) => {
              const timer = setTimeout(resolve, LOOK_EVERY_MS);
              wake = () => {
                clearTimeout(timer);
                resolve();
              };
            });
          }
        }
        controller.close();
      } catch (error) {
        if (!over.aborted) controller.error(error);
      } finally {
        await watch[Symbol.asyncDispose]();
      }
    },
    cancel: () => hangUp.abort(),
  });
}

function frame(event: TaskEvent): string {
  return `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify({ ...event.data, at: event.at.toISOString() })}\n\n`;
}
