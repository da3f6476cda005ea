/** Runs one step of a task: calls the plugin until it gives a result, its failure is final, or time is up. Retries have their only owner here. */
import type { Capability, CapabilitySigner } from "../access/capability-token.ts";
import { failpoint } from "../failpoint.ts";
import { publicId } from "../ids.ts";
import type { Upstream } from "../models/upstream.ts";
import type { ExecutionEvent, InputEnvelope, OutputEnvelope } from "../sdk/src/envelopes.ts";
import { childOf, traceparentOf } from "../telemetry/trace.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { CancelRequested, type Lease, LeaseLost } from "./lease.ts";
import { type PluginClient, PluginFailure } from "./plugin-client.ts";
import { fullJitterMs } from "../retry-delay.ts";

/** What a step needs of the platform. */
export interface StepRunner {
  plugins: PluginClient;
  capabilities: CapabilitySigner;
  upstream: Pick<Upstream, "live">;
}

/** How often an unreachable plugin sends a task back to the queue before the task fails: about two minutes in all. */
const MAX_UNREACHABLE = 6;

export type StepEnding =
  | { kind: "output"; output: OutputEnvelope }
  | { kind: "failed"; error: { code: string; message: string; cause: "caller" | "plugin" | "upstream" | "platform" }; output: OutputEnvelope | null }
  | { kind: "cancelled" }
  | { kind: "lost" }
  | { kind: "hand_back"; delayMs: number; reason: string };

/** Calls the plugin until it gives a result, its failure is final, or time is up. `prepare` makes the envelope for whichever plugin is called. */
export async function runStep(
  executor: StepRunner,
  claim: Claim,
  step: ClaimedStep,
  lease: Lease,
  stopping: AbortSignal,
  prepare: (step: ClaimedStep) => Promise<InputEnvelope>,
): Promise<StepEnding> {
  const { manifest } = step;
  let tries = 0;
  const input = await prepare(step);
  for (;;) {
    tries += 1;
    const timeoutMs = Math.max(1, Math.min(manifest.timeout_seconds * 1000, claim.deadlineAtMs - Date.now()));
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = AbortSignal.any([lease.signal, stopping, timeout]);
    try {
      const output = await callPlugin(executor, claim, step, lease, input, signal, timeoutMs);
      if (output.status !== "failed") return { kind: "output", output };
      // A gateway or a provider that was away: trying again is this function's business, as for a plugin that cannot be reached.
      if (output.error_code === "PLUGIN_UNAVAILABLE" && output.error_cause === "upstream")
        throw new PluginFailure("PLUGIN_UNAVAILABLE", output.error ?? "The plugin could not reach what it needs.", "upstream", true);
      return {
        kind: "failed",
        output,
        error: { code: output.error_code ?? "INTERNAL", message: output.error ?? "The plugin failed without saying why.", cause: output.error_cause ?? "plugin" },
      };
    } catch (error) {
      if (lease.signal.reason instanceof LeaseLost) return { kind: "lost" };
      if (lease.signal.reason instanceof CancelRequested) return { kind: "cancelled" };
      if (stopping.aborted) return { kind: "hand_back", delayMs: 0, reason: "instance stops" };
      const failure = timeout.aborted
        ? new PluginFailure("PLUGIN_TIMEOUT", `The plugin did not finish within ${Math.round(timeoutMs / 1000)} seconds.`, "plugin", claim.deadlineAtMs > Date.now())
        : error;
      if (!(failure instanceof PluginFailure)) throw failure;
      const delayMs = fullJitterMs(tries, { baseMs: 500, capMs: 10_000 });
      if (failure.isTransient && tries <= manifest.max_retries && Date.now() + delayMs < claim.deadlineAtMs) {
        lease.report("retrying", { code: failure.code, try: tries + 1 });
        await pause(delayMs, AbortSignal.any([lease.signal, stopping]));
        continue;
      }
      if (failure.code === "PLUGIN_UNAVAILABLE" && failure.isTransient && claim.handBacks < MAX_UNREACHABLE) {
        return { kind: "hand_back", delayMs: Math.min(2_000 * 2 ** claim.handBacks, 60_000), reason: failure.code };
      }
      return { kind: "failed", output: null, error: { code: failure.code, message: failure.message, cause: failure.blame } };
    }
  }
}

async function callPlugin(
  executor: StepRunner,
  claim: Claim,
  step: ClaimedStep,
  lease: Lease,
  input: InputEnvelope,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<OutputEnvelope> {
  const expiresAtMs = Date.now() + timeoutMs + 5_000;
  const token = (aud: Capability["aud"]) =>
    executor.capabilities.mint({
      aud,
      tenant: claim.tenantId,
      task: claim.taskId,
      attempt: claim.attempt,
      step: step.id,
      plugin: step.plugin,
      version: step.version,
      scopes: step.manifest.required_scopes,
      token_budget: step.manifest.token_budget,
      lease: claim.leaseToken,
      exp: expiresAtMs,
    });
  FAILPOINT: await failpoint("execute.before_plugin");
  const events = executor.plugins.execute({
    endpoint: step.endpoint,
    input,
    llmToken: token("llm"),
    scopedToken: token("scoped"),
    hasModel: executor.upstream.live,
    deadline: new Date(Date.now() + timeoutMs),
    traceparent: childOf(traceparentOf(claim.traceparent)),
    requestId: claim.requestId,
    signal,
  });
  for await (const event of events) {
    if (event.type === "output") return checkOutput(event.envelope, claim);
    reportProgress(lease, event);
  }
  throw new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin ended without a result.", "plugin", true);
}

function reportProgress(lease: Lease, event: Exclude<ExecutionEvent, { type: "output" }>): void {
  if (event.type === "alive") return;
  const { type, ...data } = event.type === "warning" ? { type: event.type, ...event.warning } : event;
  lease.report(type, "node" in data ? { ...data, node: data.node.slice(0, 100) } : data);
}

function checkOutput(output: OutputEnvelope, claim: Claim): OutputEnvelope {
  if (output.task_id !== publicId("task", claim.taskId)) throw new PluginFailure("INTERNAL", "The plugin answered for another task.", "plugin", false);
  return output;
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
