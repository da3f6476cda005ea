/**
 * Runs the steps of a task's plan: each as soon as what it needs has ended, several at once where they do not wait for each other. A step
 * that has finished is written down before another one builds on it, and no later attempt runs it again; the last one is written with the
 * task's end.
 */
import type { Signals } from "../redis/signals.ts";
import type { StoredError } from "../tasks/task-view.ts";
import { loadTaskContext, type TaskContext } from "./assemble-context.ts";
import { carryOutStep, type StepCarrier } from "./carry-out-step.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { CancelRequested, type Lease, LeaseLost } from "./lease.ts";
import type { StepEnding } from "./run-step.ts";
import { isUnstorable, recordStep, type StepRecord, stepRecord, UNSTORABLE } from "./step-record.ts";

export type PlanRunner = StepCarrier & { signals: Pick<Signals, "taskProgressed"> };
type HandBack = Extract<StepEnding, { kind: "hand_back" }>;

export type PlanEnding =
  /** `ended`: every step has a record. Those in `fresh` are not written yet. */
  { kind: "ended" | "cancelled"; steps: StepRecord[]; fresh: StepRecord[] } | { kind: "lost" } | HandBack;

/** Of one task; the others wait, so that a wide plan does not take an executor's whole room. */
const MAX_AT_ONCE = 4;

/** Throws what is trouble of the platform's own, when every step of this attempt has stopped. */
export async function runPlan(runner: PlanRunner, claim: Claim, lease: Lease, stopping: AbortSignal): Promise<PlanEnding> {
  const ended = new Map(claim.finished.map((record) => [record.id, record]));
  const written = new Set(ended.keys());
  const running = new Map<string, Promise<void>>();
  const waiting = new Set(claim.steps.filter(({ id }) => !ended.has(id)));
  const giveUp = new AbortController();
  const stop = AbortSignal.any([stopping, giveUp.signal]);
  const stopped: { handBack?: HandBack; trouble?: { error: unknown } } = {};
  let writing = 0;
  let context: Promise<TaskContext> | undefined;

  async function carryOut(step: ClaimedStep): Promise<void> {
    context ??= loadTaskContext(runner, claim);
    const own: Lease = { ...lease, report: (type, data) => lease.report(type, { step: step.id, ...data }) };
    const outcome = await carryOutStep(runner, claim, step, stepsBefore(claim, step, ended), await context, own, stop);
    if (outcome.kind === "hand_back") stopped.handBack ??= outcome;
    if (outcome.kind !== "record") return;
    const { record } = outcome;
    if (claim.steps.length > 1) tell(lease, record);
    const isLast = ended.size + writing + 1 === claim.steps.length;
    if (isLast || record.status === "cancelled") ended.set(step.id, record);
    else await write(step, record);
  }

  async function write(step: ClaimedStep, record: StepRecord): Promise<void> {
    writing += 1;
    const events = await lease.drain();
    let kept = record;
    const recorded = await recordStep(runner.db, claim, record, events).catch((error: unknown) => {
      if (!isUnstorable(error)) throw error;
      kept = stepRecord(step, "failed", { error: UNSTORABLE, latencyMs: record.latencyMs });
      tell(lease, kept);
      return recordStep(runner.db, claim, kept, []);
    });
    writing -= 1;
    if (!recorded.held) throw new LeaseLost();
    ended.set(step.id, kept);
    written.add(step.id);
    if (recorded.cancelRequested) lease.cancel();
    await runner.signals.taskProgressed(claim.taskId);
  }

  function end(record: StepRecord): void {
    ended.set(record.id, record);
    tell(lease, record);
  }

  for (;;) {
    for (const record of outOfReach(waiting, ended)) end(record);
    for (const step of waiting) if (ended.has(step.id)) waiting.delete(step);
    // A step that began now would have to be stopped in its first nodes.
    const isLeaving = performance.now() >= (runner.stopAfterMs ?? Number.POSITIVE_INFINITY);
    const isOpen = !isLeaving && !stop.aborted && !lease.signal.aborted;
    for (const step of waiting) {
      if (!isOpen || running.size >= MAX_AT_ONCE) break;
      if (!needsOf(step).every((id) => ended.has(id))) continue;
      waiting.delete(step);
      const work = carryOut(step)
        .catch((error: unknown) => {
          stopped.trouble ??= { error };
          giveUp.abort();
        })
        .finally(() => running.delete(step.id));
      running.set(step.id, work);
    }
    if (running.size > 0) {
      await Promise.race(running.values());
      continue;
    }
    if (waiting.size === 0 || !isOpen || stopped.handBack) break;
    // A plan is checked when it is admitted; one that goes in a circle all the same must end, not wait.
    for (const step of waiting) end(stepRecord(step, "failed", { error: caller(`Step ${step.id} waits for steps that never end.`) }));
    waiting.clear();
  }

  const { handBack, trouble } = stopped;
  if (lease.signal.reason instanceof LeaseLost || trouble?.error instanceof LeaseLost) return { kind: "lost" };
  if (trouble) throw trouble.error;
  const steps = claim.steps.flatMap(({ id }) => ended.get(id) ?? []);
  const fresh = steps.filter(({ id }) => !written.has(id));
  const isWhole = steps.length === claim.steps.length && fresh.every(({ status }) => status !== "cancelled");
  if (isWhole) return { kind: "ended", steps, fresh };
  if (lease.signal.reason instanceof CancelRequested) return { kind: "cancelled", steps, fresh };
  return handBack ?? { kind: "hand_back", delayMs: 0, reason: "instance stops" };
}

const caller = (message: string): StoredError => ({ code: "INVALID_INPUT", message, cause: "caller" });

function tell(lease: Lease, { id, status, error }: StepRecord): void {
  lease.report("step_finished", { step: id, status, ...(error ? { code: error.code } : {}) });
}

/** What a step takes from, it needs. */
const needsOf = (step: ClaimedStep): string[] => [...step.needs, ...(step.inputs ?? []).map(({ from }) => from)];

/** Only these may a step look at: they have ended whenever it begins, in every attempt. */
function stepsBefore(claim: Claim, step: ClaimedStep, ended: ReadonlyMap<string, StepRecord>): Map<string, StepRecord> {
  const before = new Map<string, StepRecord>();
  const open = needsOf(step);
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    const record = ended.get(id);
    if (!record || before.has(id)) continue;
    before.set(id, record);
    open.push(...claim.steps.flatMap((other) => (other.id === id ? needsOf(other) : [])));
  }
  return before;
}

/** Steps that will not run, because one that they need has failed or was skipped. */
function outOfReach(waiting: Iterable<ClaimedStep>, ended: ReadonlyMap<string, StepRecord>): StepRecord[] {
  const found = new Map<string, StepRecord>();
  for (let before = -1; before < found.size; ) {
    before = found.size;
    for (const step of waiting) {
      if (found.has(step.id)) continue;
      const needed = needsOf(step).flatMap((id) => ended.get(id) ?? found.get(id) ?? []);
      const failed = needed.find(({ status }) => status === "failed");
      if (failed) {
        const error: StoredError = { code: "DEPENDENCY_FAILED", message: `Step ${failed.id}, which this one needs, failed.`, cause: failed.error?.cause ?? "plugin" };
        found.set(step.id, stepRecord(step, "failed", { error }));
      } else if (needed.some(({ status }) => status === "skipped")) found.set(step.id, stepRecord(step, "skipped"));
    }
  }
  return [...found.values()];
}
