/** Carries out a step that one plugin has another one do: the same call, retries, circuit and record as any step of a plan. */
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import type { TenantSecrets } from "../access/tenant-secrets.ts";
import { publicId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import type { ChainLine, ChainRequest } from "../sdk/src/chaining.ts";
import { ENVELOPE_VERSION } from "../sdk/src/envelopes.ts";
import { redactor } from "../sdk/src/secret.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { stepContext } from "./assemble-context.ts";
import type { Begun } from "./begin-chained-step.ts";
import { holdChainedStep } from "./chained-hold.ts";
import type { ClaimedStep } from "./claim-task.ts";
import { withEnding } from "./plugin-ending.ts";
import { type Prepared, runStep, type StepEnding, type StepRunner } from "./run-step.ts";
import { type StepRecord, stepRecord, stepRow } from "./step-record.ts";
import { storedOutput } from "./stored-output.ts";

export interface ChainRunner extends StepRunner {
  secrets: TenantSecrets;
  signals: Signals;
  telemetry: Pick<Telemetry, "pluginAnswered" | "nodeFinished" | "stepFinished">;
}

type LastLine = Exclude<ChainLine, { type: "alive" }>;
const failed = (code: string, message: string, cause: "caller" | "plugin" | "upstream" | "platform", retryAfterSec?: number): LastLine => ({
  type: "failed",
  code,
  message,
  cause,
  ...(retryAfterSec === undefined ? {} : { retry_after_seconds: retryAfterSec }),
});
const OVER = failed("LEASE_LOST", "This execution is over.", "platform");

/** What the parent is told of a step that has ended well. */
export function endedLine({ plugin, version, status, output }: StepRecord, tokensUsed: number): LastLine {
  if (!output) return failed("INTERNAL", "The step left nothing behind.", "platform");
  const { result, data, artifacts, confidence, next_steps, warnings } = output;
  return {
    type: "ended",
    plugin,
    version,
    status: status === "partial" ? "partial" : "success",
    result,
    data,
    artifacts,
    confidence,
    next_steps,
    warnings,
    tokens_used: tokensUsed,
  };
}

const Ended = v.object({ held: v.boolean(), tokens_used: v.pipe(v.string(), v.transform(Number)) });

/** `leaving` aborts when the parent hung up or this instance has to go. Never throws what is not the platform's own trouble. */
export async function carryOutChainedStep(
  runner: ChainRunner,
  capability: Capability,
  asked: v.InferOutput<typeof ChainRequest>,
  { holder, step, claim, context }: Extract<Begun, { kind: "begun" }>,
  leaving: AbortSignal,
): Promise<LastLine> {
  const end = async (record: StepRecord | null, events: unknown[]) => {
    const row = record && JSON.stringify(stepRow(claim, record));
    const values = [claim.tenantId, claim.taskId, claim.leaseToken, step.id, holder, row, JSON.stringify(events)];
    const [ended] = await runner.db.call("SELECT held, tokens_used FROM end_chained_step($1, $2, $3, $4, $5, $6, $7)", values);
    return v.parse(Ended, ended);
  };
  let isEnded = false;
  await using lease = await holdChainedStep(runner.db, runner.signals, { capability, step: step.id, holder });
  try {
    const revealed = new Set<string>();
    const prepare = async (which: ClaimedStep): Promise<Prepared> => {
      const told = await stepContext(runner, claim, which, context);
      for (const value of Object.values(told.secrets)) revealed.add(value);
      const input = {
        task_id: publicId("task", claim.taskId),
        task_description: asked.command,
        envelope_version: ENVELOPE_VERSION,
        context: told,
        metadata: { source_channel: "api", priority: claim.priority, source_plugin: capability.plugin, correlation_id: claim.requestId, timestamp: claim.createdAt },
        // A plugin made them or passes them on: to the next one they are data of that plugin's.
        attachments: asked.attachments.map((file) => ({ ...file, origin: { step: capability.step, plugin: capability.plugin } })),
      };
      // The task's context is its executor's to keep: a later attempt goes the long way, and pays nothing for that.
      return { input, shortening: { isKnown: false, keep: async () => {} } };
    };
    lease.report("step_started", { plugin: step.plugin, version: step.version, chained_by: capability.step });
    const startedAt = performance.now();
    const ending = await runStep(runner, claim, step, lease, leaving, prepare);
    const latencyMs = Math.round(performance.now() - startedAt);
    if (ending.kind === "lost" || leaving.aborted) return OVER;
    if (ending.kind === "cancelled") return failed("CANCELLED", "The task was cancelled.", "caller");
    if (ending.kind === "hand_back")
      return failed("PLUGIN_UNAVAILABLE", `${step.plugin} ${step.version} cannot be called for the moment.`, "upstream", Math.ceil(ending.delayMs / 1000));
    runner.telemetry.stepFinished({
      taskId: claim.taskId,
      tenantId: claim.tenantId,
      plugin: step.plugin,
      step: step.id,
      status: ending.kind === "output" ? ending.output.status : ending.kind,
      durationMs: latencyMs,
      budgetExceeded: ending.kind === "output" && ending.output.execution_meta.budget_exceeded,
    });
    const record = await recordOf(runner, claim, step, ending, { latencyMs, redact: redactor(revealed) });
    lease.report("step_finished", { status: record.status, ...(record.error ? { code: record.error.code } : {}) });
    const { held, tokens_used } = await end(record, await lease.release());
    isEnded = true;
    if (!held) return OVER;
    return record.error ? failed(record.error.code, record.error.message, record.error.cause, record.error.retry_after_seconds) : endedLine(record, tokens_used);
  } finally {
    // Whoever asks again need not wait until this hold has gone stale.
    if (!isEnded) await end(null, []).catch(() => {});
  }
}

async function recordOf(
  runner: ChainRunner,
  claim: Extract<Begun, { kind: "begun" }>["claim"],
  step: ClaimedStep,
  ending: Extract<StepEnding, { kind: "output" | "failed" }>,
  { latencyMs, redact }: { latencyMs: number; redact: (text: string) => string },
): Promise<StepRecord> {
  const by = ending.kind === "output" ? { ...step, ...ending.answeredBy } : step;
  const output = ending.output && withEnding(await storedOutput(runner.db, claim, by, ending.output, { warnings: [], latencyMs, redact }), step);
  if (ending.kind === "failed") return stepRecord(step, "failed", { output, error: ending.error, latencyMs });
  return stepRecord(by, ending.output.status === "partial" ? "partial" : "success", { output, latencyMs });
}
