/**
 * One wake-up of `task-execute`: claim, run the plan's steps, settle. Every write after the claim carries the lease; whoever loses it
 * stops and writes nothing.
 */
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { TaskId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { childOf } from "../telemetry/trace.ts";
import { takeDueWebhooks } from "../webhooks/due-webhooks.ts";
import { claimTask } from "./claim-task.ts";
import { holdLease } from "./lease.ts";
import { type PlanRunner, runPlan } from "./run-plan.ts";
import { handBack, type Settler, settleTask } from "./settle-task.ts";

export interface Executor extends PlanRunner, Settler {
  platformDb: PlatformDb;
  signals: Signals;
  telemetry: Telemetry;
  leaseMs: number;
  maxCrashes: number;
  /** The context of this wake-up, in the task's own trace. */
  traceparent: string;
}

export type RunOutcome = { outcome: "done" } | { outcome: "later"; retryAfterSec: number };

/** Endpoints, whoever's they are; `wake` rings for the rest. */
const MAX_RINGS = 20;
const DONE: RunOutcome = { outcome: "done" };

/** `stopping` aborts when the instance must give its work back. */
export async function runTask(executor: Executor, taskId: TaskId, stopping: AbortSignal): Promise<RunOutcome> {
  FAILPOINT: await failpoint("claim.before");
  const claimed = await claimTask(executor.platformDb, taskId, executor.leaseMs, executor.maxCrashes);
  FAILPOINT: await failpoint("claim.after_commit");
  if (claimed.outcome === "gone") return DONE;
  if (claimed.outcome === "ended") {
    await executor.signals.taskEnded(taskId);
    // Whoever settles is told which endpoints are to hear of it; what ended in the claim is looked up.
    const due = await takeDueWebhooks(executor.platformDb, MAX_RINGS);
    await Promise.all(due.map((id) => executor.ring.webhook(id, childOf(executor.traceparent))));
    return DONE;
  }
  const claim = { ...claimed.claim, traceparent: executor.traceparent };
  const [first, ...others] = claim.steps;
  const startedAt = performance.now();
  const lease = holdLease(
    executor.db,
    { tenantId: claim.tenantId, taskId, token: claim.leaseToken, leaseMs: executor.leaseMs },
    () => void executor.signals.taskProgressed(taskId),
  );
  let cancels: AsyncDisposable | undefined;
  const ids = { taskId, tenantId: claim.tenantId, plugin: first.plugin, attempt: claim.attempt };
  try {
    cancels = await executor.signals.watchCancels((id) => {
      if (id === taskId) lease.cancel();
    });
    lease.report("started", {
      attempt: claim.attempt,
      plugin: first.plugin,
      version: first.version,
      ...(others.length > 0 ? { steps: claim.steps.map(({ id, plugin }) => ({ step: id, plugin })) } : {}),
    });
    const ending = await runPlan(executor, claim, lease, stopping).catch(async (error: unknown) => {
      // Trouble of the platform's own: another executor may fare better, and need not wait for the lease to run out.
      await handBack(executor.db, claim, 2_000, await lease.release()).catch(() => {});
      throw error;
    });
    const events = await lease.release();
    if (ending.kind === "hand_back") {
      const held = await handBack(executor.db, claim, ending.delayMs, events);
      executor.telemetry.taskHandedBack({ ...ids, reason: ending.reason });
      return held ? { outcome: "later", retryAfterSec: ending.delayMs / 1000 } : DONE;
    }
    FAILPOINT: await failpoint("settle.before");
    const settled = ending.kind === "lost" ? null : await settleTask(executor, claim, ending, events);
    FAILPOINT: await failpoint("settle.after_commit");
    if (!settled) {
      executor.telemetry.taskLost(ids);
      return DONE;
    }
    await executor.signals.taskEnded(taskId);
    executor.telemetry.taskFinished({
      ...ids,
      status: settled.status,
      method: claim.routingMethod,
      durationMs: performance.now() - startedAt,
      errorCode: settled.error?.code ?? null,
    });
    return DONE;
  } finally {
    await lease.release();
    await cancels?.[Symbol.asyncDispose]();
  }
}
