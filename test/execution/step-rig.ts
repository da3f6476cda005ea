/** runStep with a plugin that follows a script, so that each way to fail can be played without a wire. Its circuit is Redis's own. */
import type { Redis } from "ioredis";
import { parse } from "valibot";
import { capabilitySigner } from "../../shared/access/capability-token.ts";
import type { Claim, ClaimedStep } from "../../shared/execution/claim-task.ts";
import type { Lease } from "../../shared/execution/lease.ts";
import type { PluginCall } from "../../shared/execution/plugin-client.ts";
import { runStep, type StepEnding } from "../../shared/execution/run-step.ts";
import { asId, newId, publicId, type TaskId } from "../../shared/ids.ts";
import type { ExecutionEvent, InputEnvelope, OutputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";

export type Play = (call: PluginCall, count: number) => ExecutionEvent | Promise<ExecutionEvent>;

export const manifestOf = (more: Record<string, unknown> = {}) =>
  parse(Manifest, {
    name: "scripted",
    version: "1.0.0",
    description: "A plugin that follows a script.",
    capabilities: ["follow a script"],
    category: "testing",
    envelope_version: "2.0",
    estimated_latency: "fast",
    model: "none",
    ...more,
  });

export function outputOf(call: PluginCall, more: Partial<OutputEnvelope> = {}): ExecutionEvent {
  const execution_meta = { tokens_used: 0, latency_seconds: 0, agents_invoked: 1, model_used: null, cost_estimate: 0, routing_method: null, budget_exceeded: false };
  const envelope: OutputEnvelope = {
    task_id: call.input.task_id,
    envelope_version: "1.0",
    status: "success",
    result: "done",
    data: null,
    artifacts: [],
    confidence: 1,
    error: null,
    error_code: null,
    error_cause: null,
    next_steps: [],
    warnings: [],
    deprecation_warning: null,
    execution_meta,
    ...more,
  };
  return { type: "output", envelope };
}

export const failed = (call: PluginCall, code: string, cause: "caller" | "plugin" | "upstream" | "platform", more: Partial<OutputEnvelope> = {}) =>
  outputOf(call, { status: "failed", result: "", confidence: 0, error: `it said ${code}`, error_code: code, error_cause: cause, ...more });

export interface StepRun {
  ending: StepEnding;
  /** How often later attempts were told to begin with less context. */
  kept: number;
  /** The inputs of the calls, in order. */
  calls: InputEnvelope[];
  /** When each call was made, from the start of the step. */
  atMs: number[];
  reports: { type: string; data: Record<string, unknown> }[];
}

export interface RunSettings {
  manifest?: Record<string, unknown>;
  deadlineMs?: number;
  attempt?: number;
  handBacks?: number;
  taskId?: TaskId;
  stopAfterMs?: number;
  context?: Partial<InputEnvelope["context"]>;
  isShortened?: boolean;
  stopping?: AbortSignal;
}

export async function runScripted(
  redis: Redis,
  play: Play,
  { manifest, deadlineMs = 60_000, attempt = 1, handBacks = 0, taskId = newId("task"), stopAfterMs, context, isShortened = false, stopping }: RunSettings = {},
): Promise<StepRun> {
  const tenantId = newId("tenant");
  const full = manifestOf(manifest);
  const step: ClaimedStep = { id: "main", plugin: full.name, version: full.version, needs: [], manifest: full, endpoint: "http://nowhere", ending: null, config: {} };
  const claim = {
    taskId,
    tenantId,
    leaseToken: crypto.randomUUID(),
    attempt,
    handBacks,
    deadlineAtMs: Math.floor(performance.now()) + deadlineMs,
    steps: [step],
    requestId: "req_test",
    traceparent: null,
  } as unknown as Claim;
  const reports: StepRun["reports"] = [];
  const lease = { signal: new AbortController().signal, report: (type: string, data: Record<string, unknown>) => void reports.push({ type, data }) } as unknown as Lease;
  const calls: InputEnvelope[] = [];
  const atMs: number[] = [];
  const startedAt = performance.now();
  const plugins = {
    async *execute(call: PluginCall) {
      calls.push(call.input);
      atMs.push(performance.now() - startedAt);
      const aborted = new Promise<never>((_, reject) => call.signal.addEventListener("abort", () => reject(call.signal.reason), { once: true }));
      aborted.catch(() => {});
      yield await Promise.race([play(call, calls.length), aborted]);
    },
    health: () => Promise.reject(new Error("not asked here")),
    close() {},
  };
  const input: InputEnvelope = {
    task_id: publicId("task", asId("task", taskId)),
    task_description: "do",
    envelope_version: "1.0",
    context: { tenant_id: "ten_1", user_id: null, user_profile: {}, conversation_history: [], org_knowledge_chunks: [], plugin_config: {}, secrets: {}, ...context },
    metadata: { source_channel: "api", priority: "normal", source_plugin: null, correlation_id: "req_test", timestamp: new Date().toISOString() },
    attachments: [],
  };
  let kept = 0;
  const keep = async () => {
    kept += 1;
  };
  const prepare = async () => ({ input, shortening: { isKnown: isShortened, keep } });
  const runner = {
    db: { call: async () => [], tenant: () => Promise.reject(new Error("not asked here")) },
    redis,
    telemetry: { pluginAnswered() {}, nodeFinished() {} },
    plugins,
    capabilities: capabilitySigner("a key that only these tests know, long enough"),
    upstream: { live: true },
    stopAfterMs,
  };
  const ending = await runStep(runner, claim, step, lease, stopping ?? new AbortController().signal, prepare);
  return { ending, calls, atMs, reports, kept };
}
