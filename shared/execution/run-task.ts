/**
 * One wake-up of `task-execute`: claim, run the step, settle. Every write after the claim carries the lease; whoever loses it
 * stops and writes nothing.
 */
import * as v from "valibot";
import type { TenantSecrets } from "../access/tenant-secrets.ts";
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { asId, publicId, type TaskId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import { Attachment, ENVELOPE_VERSION, type InputEnvelope } from "../sdk/src/envelopes.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { type Claim, type ClaimedStep, claimTask } from "./claim-task.ts";
import { holdLease } from "./lease.ts";
import { runStep, type StepRunner } from "./run-step.ts";
import { handBack, type Settlement, settleTask } from "./settle-task.ts";

export interface Executor extends StepRunner {
  secrets: TenantSecrets;
  platformDb: PlatformDb;
  signals: Signals;
  telemetry: Telemetry;
  leaseMs: number;
  maxCrashes: number;
}

export type RunOutcome = { outcome: "done" } | { outcome: "later"; retryAfterSec: number };

const DONE: RunOutcome = { outcome: "done" };

/** `stopping` aborts when the instance must give its work back. */
export async function runTask(executor: Executor, taskId: TaskId, stopping: AbortSignal): Promise<RunOutcome> {
  FAILPOINT: await failpoint("claim.before");
  const claimed = await claimTask(executor.platformDb, taskId, executor.leaseMs, executor.maxCrashes);
  FAILPOINT: await failpoint("claim.after_commit");
  if (claimed.outcome === "gone") return DONE;
  if (claimed.outcome === "ended") {
    await executor.signals.taskEnded(taskId);
    return DONE;
  }
  const { claim } = claimed;
  const [step] = claim.steps;
  const startedAt = performance.now();
  const lease = holdLease(
    executor.db,
    { tenantId: claim.tenantId, taskId, token: claim.leaseToken, leaseMs: executor.leaseMs },
    () => void executor.signals.taskProgressed(taskId),
  );
  let cancels: AsyncDisposable | undefined;
  const ids = { taskId, tenantId: claim.tenantId, plugin: step.plugin, attempt: claim.attempt };
  try {
    cancels = await executor.signals.watchCancels((id) => {
      if (id === taskId) lease.cancel();
    });
    lease.report("started", { attempt: claim.attempt, plugin: step.plugin, version: step.version });
    const ending = await runStep(executor, claim, step, lease, stopping, async (which) => inputEnvelope(claim, which, await secretsOf(executor, claim, which))).catch(
      async (error: unknown) => {
        // Trouble of the platform's own: another executor may fare better, and need not wait for the lease to run out.
        await handBack(executor.db, claim, 2_000).catch(() => {});
        throw error;
      },
    );
    const events = await lease.release();
    if (ending.kind === "hand_back") {
      const held = await handBack(executor.db, claim, ending.delayMs);
      executor.telemetry.taskHandedBack({ ...ids, reason: ending.reason });
      return held ? { outcome: "later", retryAfterSec: ending.delayMs / 1000 } : DONE;
    }
    FAILPOINT: await failpoint("settle.before");
    const settlement: Settlement = { ...ending, latencyMs: Math.round(performance.now() - startedAt) };
    const held = ending.kind !== "lost" && (await settleTask(executor.db, claim, settlement, events));
    FAILPOINT: await failpoint("settle.after_commit");
    if (!held) {
      executor.telemetry.taskLost(ids);
      return DONE;
    }
    await executor.signals.taskEnded(taskId);
    const error = settlement.kind === "failed" ? settlement.error : null;
    executor.telemetry.taskFinished({
      ...ids,
      status: settlement.kind === "output" ? settlement.output.status : settlement.kind,
      method: claim.routingMethod,
      durationMs: performance.now() - startedAt,
      errorCode: error?.code ?? null,
      budgetExceeded: settlement.kind === "output" && settlement.output.execution_meta.budget_exceeded,
    });
    return DONE;
  } finally {
    await lease.release();
    await cancels?.[Symbol.asyncDispose]();
  }
}

const secretsOf = (executor: Executor, claim: Claim, { plugin, manifest }: ClaimedStep) =>
  manifest.required_secret_names.length === 0 ? {} : executor.secrets.reveal(executor.db, claim.tenantId, plugin, manifest.required_secret_names);

const Input = v.object({ command: v.string(), attachments: v.array(Attachment) });

function inputEnvelope(claim: Claim, step: ClaimedStep, secrets: Record<string, string>): InputEnvelope {
  const { command, attachments } = v.parse(Input, claim.input);
  return {
    task_id: publicId("task", claim.taskId),
    task_description: command,
    envelope_version: ENVELOPE_VERSION,
    context: {
      tenant_id: publicId("tenant", claim.tenantId),
      user_id: claim.userId === null ? null : publicId("user", asId("user", claim.userId)),
      user_profile: claim.profile ?? {},
      conversation_history: [],
      org_knowledge_chunks: [],
      plugin_config: step.config,
      secrets,
    },
    metadata: { source_channel: "api", priority: claim.priority, source_plugin: null, correlation_id: claim.requestId, timestamp: claim.createdAt },
    attachments,
  };
}
