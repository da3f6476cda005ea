/** One call of a plugin for one step: the tokens that it may use, its progress, and its answer. */
import type { Capability, CapabilitySigner } from "../access/capability-token.ts";
import { failpoint } from "../failpoint.ts";
import { publicId } from "../ids.ts";
import type { Upstream } from "../models/upstream.ts";
import type { ExecutionEvent, InputEnvelope, OutputEnvelope } from "../sdk/src/envelopes.ts";
import { redactJson, redactor } from "../sdk/src/secret.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { childOf, traceparentOf } from "../telemetry/trace.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import type { Lease } from "./lease.ts";
import { type PluginClient, PluginFailure } from "./plugin-client.ts";

export interface PluginCaller {
  plugins: PluginClient;
  capabilities: CapabilitySigner;
  upstream: Pick<Upstream, "live">;
  telemetry: Pick<Telemetry, "pluginAnswered" | "nodeFinished">;
}

/** The plugin's process has to go; another one can take the task on, and the models' answers are in the journal. */
export class PluginStopped extends Error {
  override readonly name = "PluginStopped";
}

export interface CallLimits {
  /** Ends the call at once. */
  signal: AbortSignal;
  timeoutMs: number;
  /** The plugin stops at the next node after so long. */
  stopInMs: number | null;
}

/** Throws PluginFailure, PluginStopped, or the signal's reason. */
export async function callPlugin(caller: PluginCaller, claim: Claim, step: ClaimedStep, lease: Lease, input: InputEnvelope, limits: CallLimits): Promise<OutputEnvelope> {
  const expiresAtMs = Date.now() + limits.timeoutMs + 5_000;
  const token = (aud: Capability["aud"]) =>
    caller.capabilities.mint({
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
      ...(claim.isOffline && { offline: true }),
      exp: expiresAtMs,
    });
  const [llmToken, scopedToken] = [token("llm"), token("scoped")];
  const chainToken = step.manifest.required_scopes.includes("plugin:chain") ? token("chain") : null;
  const traceparent = childOf(traceparentOf(claim.traceparent));
  FAILPOINT: await failpoint("execute.before_plugin");
  const events = caller.plugins.execute({
    endpoint: step.endpoint,
    input,
    envelopeVersion: step.manifest.envelope_version,
    llmToken,
    scopedToken,
    chainToken,
    hasModel: caller.upstream.live && !claim.isOffline,
    timeLeftMs: limits.timeoutMs,
    stopInMs: limits.stopInMs,
    traceparent,
    requestId: claim.requestId,
    signal: limits.signal,
  });
  // The plugin is trusted with the values while it works; nothing that it says is stored or shown with one of them in it.
  const redact = redactor([...Object.values(input.context.secrets), llmToken, scopedToken, ...(chainToken === null ? [] : [chainToken])]);
  const startedAt = performance.now();
  let isAnswered = false;
  try {
    for await (const event of events) {
      if (event.type === "output") {
        isAnswered = event.envelope.status !== "failed";
        return withoutSecrets(checkOutput(event.envelope, claim), redact);
      }
      if (event.type === "stopped") throw new PluginStopped("The plugin's process is being stopped.");
      if (event.type === "node_finished")
        caller.telemetry.nodeFinished({ plugin: step.plugin, node: redact(event.node).slice(0, 100), parent: traceparent, durationMs: event.duration_ms });
      reportProgress(lease, redactJson(event, redact));
    }
    throw new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin ended without a result.", "plugin", true);
  } finally {
    const { taskId, tenantId, traceparent: parent } = claim;
    caller.telemetry.pluginAnswered({ taskId, tenantId, plugin: step.plugin, step: step.id, traceparent, parent, durationMs: performance.now() - startedAt, isError: !isAnswered });
  }
}

function reportProgress(lease: Lease, event: Exclude<ExecutionEvent, { type: "output" | "stopped" }>): void {
  if (event.type === "alive") return;
  const { type, ...data } = event.type === "warning" ? { type: event.type, ...event.warning } : event;
  lease.report(type, "node" in data ? { ...data, node: data.node.slice(0, 100) } : data);
}

function withoutSecrets(output: OutputEnvelope, redact: (text: string) => string): OutputEnvelope {
  const clean = redactJson(output, redact);
  if (JSON.stringify(clean) === JSON.stringify(output)) return output;
  const warning = { code: "SECRET_REDACTED", message: "The plugin's answer held a secret that it was given; it was taken out before anything was stored." };
  return { ...clean, warnings: [...clean.warnings, warning] };
}

function checkOutput(output: OutputEnvelope, claim: Claim): OutputEnvelope {
  if (output.task_id !== publicId("task", claim.taskId)) throw new PluginFailure("INTERNAL", "The plugin answered for another task.", "plugin", false);
  return output;
}
