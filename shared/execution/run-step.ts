/**
 * Runs one step of a task: calls the plugin until it gives a result, its failure is final, or time is up. Retries have their only owner
 * here. Short waits happen here; longer ones in the queue, where they hold nothing.
 */
import type { Redis } from "ioredis";
import type { TenantDb } from "../db/database.ts";
import { endingWarning } from "../registry/plugin-versions.ts";
import { fullJitterMs } from "../retry-delay.ts";
import { deprecationOf } from "../sdk/src/envelope-versions.ts";
import type { InputEnvelope, OutputEnvelope, Warning } from "../sdk/src/envelopes.ts";
import { openTimeLimit } from "../sdk/src/time-limit.ts";
import type { StoredError } from "../tasks/task-view.ts";
import type { Shortening } from "./assemble-context.ts";
import { callPlugin, type PluginCaller, PluginStopped } from "./call-plugin.ts";
import { askCircuit, type Permit, tellCircuit, type Verdict } from "./circuit-breaker.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { withLessContext } from "./context-overflow.ts";
import { fallbackOf } from "./fallback.ts";
import { CancelRequested, type Lease, LeaseLost } from "./lease.ts";
import { PluginFailure } from "./plugin-client.ts";
import { callFailure, type Failure, failureOf, isOutage, timedOut } from "./step-failure.ts";
import { suspicionOf } from "./suspects.ts";

/** What a step needs of the platform. */
export interface StepRunner extends PluginCaller {
  db: TenantDb;
  redis: Redis;
  /** On the monotonic clock: after this the work has to go on in another instance, since this one's request ends. */
  stopAfterMs?: number;
}

export type StepEnding =
  /** `answeredBy`: the fallback, whose execution this is. */
  | { kind: "output"; output: OutputEnvelope; answeredBy?: Pick<ClaimedStep, "plugin" | "version" | "manifest" | "ending"> }
  | { kind: "failed"; error: StoredError; output: OutputEnvelope | null }
  | { kind: "cancelled" }
  | { kind: "lost" }
  | { kind: "hand_back"; delayMs: number; reason: string };

export interface Prepared {
  input: InputEnvelope;
  shortening: Shortening;
}
export type Prepare = (step: ClaimedStep) => Promise<Prepared>;

/** Longer waits are spent in the queue. */
const MAX_WAIT_HERE_MS = 10_000;
/** The longest Retry-After that is believed. */
const MAX_RETRY_AFTER_MS = 300_000;
/** A task that was handed back more often than this, and then meets a stopping plugin once more, counts that against the plugin. */
const MAX_HAND_BACKS = 20;
/** The SDK ends an execution by itself when its time is up; this much later its process counts as stuck. */
const TIMEOUT_SLACK_MS = 1_500;
/** What a node may still take after `stopAfterMs` before the call is cut off. */
const LAST_NODE_MS = 25_000;
/** On the monotonic clock, whole: timers take no fractions. */
const nowMs = () => Math.floor(performance.now());
const UNAVAILABLE = "PLUGIN_UNAVAILABLE";
const CIRCUIT_OPEN = "CIRCUIT_OPEN";

/** Calls the step's plugin, and its fallback where that one cannot answer. `prepare` makes the envelope for whichever is called. */
export async function runStep(runner: StepRunner, claim: Claim, step: ClaimedStep, lease: Lease, stopping: AbortSignal, prepare: Prepare): Promise<StepEnding> {
  const own = await runPlugin(runner, claim, step, lease, stopping, prepare);
  const isHelpless = own.kind === "failed" ? own.error.cause !== "caller" : own.kind === "hand_back" && (own.reason === UNAVAILABLE || own.reason === CIRCUIT_OPEN);
  if (!isHelpless) return own;
  const fallback = await fallbackOf(runner.db, claim, step);
  if (!fallback) return own;
  const why = own.kind === "failed" ? own.error.code : UNAVAILABLE;
  lease.report("fallback", { plugin: step.plugin, code: why, fallback: fallback.plugin, version: fallback.version });
  const other = await runPlugin(runner, claim, fallback, lease, stopping, prepare);
  if (other.kind === "output") {
    const message = `${step.plugin} ${step.version} could not answer (${why}); ${fallback.plugin} ${fallback.version} did.`;
    const { plugin, version, manifest, ending } = fallback;
    return { kind: "output", output: withWarnings(other.output, [{ code: "FALLBACK_USED", message }]), answeredBy: { plugin, version, manifest, ending } };
  }
  // Where the fallback does not help either, what is said and done is the first plugin's.
  return other.kind === "lost" || other.kind === "cancelled" || stopping.aborted ? other : own;
}

async function runPlugin(runner: StepRunner, claim: Claim, step: ClaimedStep, lease: Lease, stopping: AbortSignal, prepare: Prepare): Promise<StepEnding> {
  const { manifest } = step;
  const of = { plugin: step.plugin, version: step.version };
  const permit = await askCircuit(runner.redis, of, manifest.timeout_seconds * 1000 + 2 * MAX_WAIT_HERE_MS);
  if (!permit.mayCall) {
    lease.report("waiting", { code: UNAVAILABLE, plugin: step.plugin, retry_after_seconds: Math.ceil(permit.retryAfterMs / 1000) });
    const message = `${step.plugin} ${step.version} has failed several times in a row and is not called for the moment.`;
    const spread = fullJitterMs(1, { baseMs: 3_000, capMs: 3_000 });
    return later(claim, permit.retryAfterMs + spread, CIRCUIT_OPEN, { code: UNAVAILABLE, message, cause: "plugin" }, null);
  }
  let ending: StepEnding | null = null;
  let verdict: Verdict = "neutral";
  try {
    ({ ending, verdict } = await callUntilFinal(runner, claim, step, lease, stopping, await prepare(step), permit));
    return ending;
  } finally {
    const told = tellCircuit(runner.redis, of, permit, verdict);
    // A success that is told late does no harm; a failure is known before the next task asks.
    if (verdict === "failure") await told;
    else told.catch(() => {});
  }
}

async function callUntilFinal(
  runner: StepRunner,
  claim: Claim,
  step: ClaimedStep,
  lease: Lease,
  stopping: AbortSignal,
  { input: whole, shortening }: Prepared,
  permit: Permit & { mayCall: true },
): Promise<{ ending: StepEnding; verdict: Verdict }> {
  const { manifest } = step;
  const neutral = (ending: StepEnding) => ({ ending, verdict: "neutral" as const });
  const known = shortening.isKnown ? withLessContext(whole) : null;
  const warnings: Warning[] = known ? [known.warning] : [];
  let input = known?.input ?? whole;
  let tries = 0;
  let unreached = 0;
  await using suspicion = await suspicionOf(runner.redis, step, claim);
  for (;;) {
    tries += 1;
    await suspicion.takeTurn(claim.deadlineAtMs - nowMs(), AbortSignal.any([lease.signal, stopping]));
    const leftMs = claim.deadlineAtMs - nowMs();
    const timeoutMs = Math.max(1, Math.min(manifest.timeout_seconds * 1000, leftMs));
    const limit = openTimeLimit(timeoutMs + TIMEOUT_SLACK_MS);
    // Most calls end by themselves long before this instance has to.
    const stopAfterMs = runner.stopAfterMs !== undefined && runner.stopAfterMs < nowMs() + timeoutMs ? runner.stopAfterMs : null;
    const leaving = stopAfterMs === null ? null : openTimeLimit(Math.max(stopAfterMs - nowMs(), 0) + LAST_NODE_MS);
    const signal = AbortSignal.any([lease.signal, stopping, limit.signal, ...(leaving ? [leaving.signal] : [])]);
    let failure: Failure;
    try {
      const output = await callPlugin(runner, claim, step, lease, input, {
        signal,
        timeoutMs,
        stopInMs: stopAfterMs === null ? null : Math.max(stopAfterMs - nowMs(), 0),
      });
      if (output.status !== "failed") return { ending: { kind: "output", output: finished(output, step, warnings) }, verdict: "success" };
      failure = failureOf(output);
    } catch (error) {
      if (lease.signal.reason instanceof LeaseLost) return neutral({ kind: "lost" });
      if (lease.signal.reason instanceof CancelRequested) return neutral({ kind: "cancelled" });
      if (stopping.aborted || leaving?.signal.aborted) return neutral({ kind: "hand_back", delayMs: 0, reason: "instance stops" });
      if (error instanceof PluginStopped && claim.handBacks < MAX_HAND_BACKS)
        return neutral({ kind: "hand_back", delayMs: Math.min(250 * 2 ** claim.handBacks, 10_000), reason: "plugin stops" });
      if (limit.signal.aborted) failure = timedOut(timeoutMs, manifest.timeout_seconds * 1000);
      else if (error instanceof PluginStopped)
        failure = callFailure(new PluginFailure(UNAVAILABLE, "The plugin's instances stop again and again.", "plugin", true, { isUnreached: true }));
      else if (error instanceof PluginFailure) failure = callFailure(error);
      else throw error;
    } finally {
      limit.close();
      leaving?.close();
    }
    await suspicion.note(failure);

    if (failure.code === "CONTEXT_WINDOW_OVERFLOW" && warnings.length === 0) {
      const smaller = withLessContext(input);
      if (smaller) {
        input = smaller.input;
        warnings.push(smaller.warning);
        await shortening.keep();
        lease.report("retrying", { code: failure.code, try: tries + 1 });
        continue;
      }
    }
    if (failure.isUnreached) unreached += 1;
    // A plugin that is starting again tried nothing: a task that was cut off and then met that has its tries still before it.
    const spent = failure.isUnreached ? unreached : tries - unreached;
    const retryAfterMs = failure.retryAfterMs === null ? null : Math.min(failure.retryAfterMs, MAX_RETRY_AFTER_MS);
    // A process that has just ended needs about a second until its successor listens.
    const jitterMs = fullJitterMs(tries, { baseMs: failure.isUnreached ? 1_500 : 500, capMs: MAX_WAIT_HERE_MS });
    const delayMs = retryAfterMs === null ? jitterMs : retryAfterMs + Math.min(jitterMs, 1_000);
    const isProbe = permit.probe !== "";
    // A probe is one call: others wait for what it finds.
    if (failure.isTransient && spent <= manifest.max_retries && !isProbe && delayMs <= MAX_WAIT_HERE_MS && nowMs() + delayMs < claim.deadlineAtMs) {
      if (nowMs() + delayMs > (runner.stopAfterMs ?? Number.POSITIVE_INFINITY)) return neutral({ kind: "hand_back", delayMs, reason: "instance stops" });
      lease.report("retrying", { code: failure.code, try: tries + 1 });
      await pause(delayMs, AbortSignal.any([lease.signal, stopping]));
      continue;
    }
    const { code, message, cause } = failure;
    const verdict: Verdict = cause === "caller" || (failure.isUnreached && retryAfterMs !== null) ? "neutral" : "failure";
    const output = failure.output && finished(failure.output, step, warnings);
    if (!isOutage(failure) && !(isProbe && failure.isTransient)) return { ending: { kind: "failed", output, error: { code, message, cause } }, verdict };
    const backoffMs = 1_000 + fullJitterMs(claim.handBacks + 1, { baseMs: 3_000, capMs: 60_000 });
    return { ending: later(claim, Math.max(backoffMs, delayMs), UNAVAILABLE, { code, message, cause }, output), verdict };
  }
}

/** Back to the queue for this long, or the failure if the deadline comes first. */
function later(claim: Claim, delayMs: number, reason: string, error: StoredError, output: OutputEnvelope | null): StepEnding {
  if (nowMs() + delayMs < claim.deadlineAtMs) return { kind: "hand_back", delayMs, reason };
  return { kind: "failed", output, error: { ...error, retry_after_seconds: Math.ceil(delayMs / 1000) } };
}

function finished(output: OutputEnvelope, step: ClaimedStep, warnings: readonly Warning[]): OutputEnvelope {
  const ending = endingWarning(step);
  const told = withWarnings(output, ending === null ? warnings : [...warnings, { code: "PLUGIN_DEPRECATED", message: ending }]);
  return { ...told, deprecation_warning: [ending, deprecationOf(step.manifest)].filter(Boolean).join(" ") || null };
}

function withWarnings(output: OutputEnvelope, warnings: readonly Warning[]): OutputEnvelope {
  return warnings.length === 0 ? output : { ...output, warnings: [...output.warnings, ...warnings] };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
