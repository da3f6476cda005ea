/** One step of a plan: whether it is to be done at all, what it is given, and what comes of it. */
import { publicId } from "../ids.ts";
import { ENVELOPE_VERSION, type InputEnvelope } from "../sdk/src/envelopes.ts";
import { redactor } from "../sdk/src/secret.ts";
import type { StoredError } from "../tasks/task-view.ts";
import { type ContextReader, shorteningOf, stepContext, type TaskContext } from "./assemble-context.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { ConditionError, parseCondition, type StepFacts } from "./condition.ts";
import type { Lease } from "./lease.ts";
import { type Prepared, runStep, type StepEnding, type StepRunner } from "./run-step.ts";
import { type HandedOver, handOver, InputMissing } from "./step-input.ts";
import { type StepRecord, stepRecord } from "./step-record.ts";
import { storedOutput } from "./stored-output.ts";

export type StepCarrier = StepRunner & ContextReader;
export type StepOutcome = { kind: "record"; record: StepRecord } | Extract<StepEnding, { kind: "lost" | "hand_back" }>;

/** As `overdue` in migrations/ says it of a task that nobody holds. */
const OVERDUE: StoredError = { code: "PLUGIN_TIMEOUT", message: "The deadline passed before the task was finished.", cause: "platform" };

/** `before`: the steps that this one needs and those that they need, all of them ended. */
export async function carryOutStep(
  carrier: StepCarrier,
  claim: Claim,
  step: ClaimedStep,
  before: ReadonlyMap<string, StepRecord>,
  context: TaskContext,
  lease: Lease,
  stopping: AbortSignal,
): Promise<StepOutcome> {
  const failed = (error: StoredError): StepOutcome => ({ kind: "record", record: stepRecord(step, "failed", { error }) });
  const due = claim.due ?? (performance.now() >= claim.deadlineAtMs ? OVERDUE : null);
  if (due) return failed(due);
  let handed: HandedOver;
  try {
    if (step.when !== undefined && !parseCondition(step.when).isTrue(factsOf(before))) return { kind: "record", record: stepRecord(step, "skipped") };
    handed = handOver(claim.taskId, step, before, claim.attachments);
  } catch (error) {
    if (error instanceof ConditionError)
      return failed({ code: "INVALID_INPUT", message: `The condition of step ${step.id} cannot be decided: ${error.message}.`, cause: "caller" });
    if (error instanceof InputMissing) return failed({ code: "INVALID_INPUT", message: `Step ${step.id} cannot be given its input: ${error.message}.`, cause: "caller" });
    throw error;
  }

  const givers = new Set(handed.attachments.map(({ origin }) => origin?.plugin ?? null));
  const revealed = new Set<string>();
  /** For the step's own plugin, or for one that stands in for it: each gets its own configuration and secrets. */
  const prepare = async (which: ClaimedStep): Promise<Prepared> => {
    const told = await stepContext(carrier, claim, which, context);
    for (const value of Object.values(told.secrets)) revealed.add(value);
    const input: InputEnvelope = {
      task_id: publicId("task", claim.taskId),
      task_description: `${step.command ?? claim.command}${handed.description}`,
      envelope_version: ENVELOPE_VERSION,
      context: told,
      metadata: {
        source_channel: "api",
        priority: claim.priority,
        source_plugin: givers.size === 1 ? ([...givers][0] ?? null) : null,
        correlation_id: claim.requestId,
        timestamp: claim.createdAt,
      },
      attachments: [...claim.attachments, ...handed.attachments],
    };
    return { input, shortening: shorteningOf(carrier, claim, which, context) };
  };

  if (claim.steps.length > 1) lease.report("step_started", { plugin: step.plugin, version: step.version });
  const startedAt = performance.now();
  const ending = await runStep(carrier, claim, step, lease, stopping, prepare);
  if (ending.kind === "lost" || ending.kind === "hand_back") return ending;
  const durationMs = performance.now() - startedAt;
  const latencyMs = Math.round(durationMs);
  carrier.telemetry.stepFinished({
    taskId: claim.taskId,
    tenantId: claim.tenantId,
    plugin: step.plugin,
    step: step.id,
    status: ending.kind === "output" ? ending.output.status : ending.kind,
    durationMs,
    budgetExceeded: ending.kind === "output" && ending.output.execution_meta.budget_exceeded,
  });
  if (ending.kind === "cancelled") return { kind: "record", record: stepRecord(step, "cancelled", { latencyMs }) };
  // What a fallback gave is its own: the record, and with it the usage, names it.
  const by = ending.kind === "output" && ending.answeredBy ? { ...step, ...ending.answeredBy } : step;
  const output =
    ending.output && (await storedOutput(carrier.db, claim, by, ending.output, { warnings: [...context.warnings, ...handed.warnings], latencyMs, redact: redactor(revealed) }));
  if (ending.kind === "failed") return { kind: "record", record: stepRecord(step, "failed", { output, error: ending.error, latencyMs }) };
  return { kind: "record", record: stepRecord(by, ending.output.status === "partial" ? "partial" : "success", { output, latencyMs }) };
}

function factsOf(before: ReadonlyMap<string, StepRecord>): Record<string, StepFacts> {
  return Object.fromEntries([...before].flatMap(([id, { status, output }]) => (output ? [[id, { status, confidence: output.confidence, data: output.data }]] : [])));
}
