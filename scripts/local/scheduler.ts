/** Rings cron functions at their times, as PingSources do in the cluster. */
import { Cron } from "croner";
import type { AnyFunction, CronFunction } from "../../shared/host/declare.ts";

const CALL_TIMEOUT_MS = 120_000;

/** Calls `urlOf(name)` by POST at every time of the schedule; a call that fails is only late. */
export function startScheduler(functions: readonly AnyFunction[], urlOf: (name: string) => string): { stop(): void } {
  const jobs = functions
    .filter((fn): fn is CronFunction => fn.kind === "cron")
    .map(
      (fn) =>
        new Cron(fn.schedule, { timezone: "UTC", protect: true }, async () => {
          await fetch(urlOf(fn.name), { method: "POST", signal: AbortSignal.timeout(CALL_TIMEOUT_MS) }).then(
            (answer) => answer.arrayBuffer(),
            () => {},
          );
        }),
    );
  return {
    stop() {
      for (const job of jobs) job.stop();
    },
  };
}
