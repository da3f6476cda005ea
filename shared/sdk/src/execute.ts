/** Runs a plugin's graph once and turns whatever happens into a valid OutputEnvelope. */
import { setMaxListeners } from "node:events";
import * as v from "valibot";
import type { Plugin, PluginResult } from "./define-plugin.ts";
import { ENVELOPE_VERSION, type ExecutionEvent, type InputEnvelope, MAX_OUTPUT_BYTES, OutputEnvelope } from "./envelopes.ts";
import { CallerMistake, Stopped } from "./errors.ts";
import { Execution, type Runtime } from "./execution.ts";
import { type Failure, toFailure } from "./failure.ts";
import type { Manifest } from "./manifest.ts";
import { loadAnthropic } from "./metered-anthropic.ts";
import { EXECUTION_KEY } from "./node.ts";
import { type CompiledGraph, runGraph } from "./run-graph.ts";

/** Steps of a graph. Time and budget end a loop that does work; this ends one that does none. */
const RECURSION_LIMIT = 100;

/** A deadline this close to the plugin's own time-out is that time-out, as seen from the other end of the network. */
const DEADLINE_SLACK_MS = 5000;

export interface Ending {
  envelope: OutputEnvelope;
  /** What was thrown, for the log and the harness. It never leaves the process. */
  thrown?: unknown;
  /** This process has to go before the work is done: another one can take the task on, and gets the answers of the models that are paid. */
  isHandedBack: boolean;
}

/** The result is not what `finish` may return. Its message names fields, never their values. */
class InvalidResult extends Error {
  override readonly name = "InvalidResult";
}

const compiled = new WeakMap<Plugin, CompiledGraph>();

/** Compiled when first needed: an import does no work. */
function graphOf(plugin: Plugin): CompiledGraph {
  const known = compiled.get(plugin);
  if (known) return known;
  const { graph } = plugin.definition;
  const runnable: CompiledGraph = "compile" in graph ? graph.compile() : graph;
  compiled.set(plugin, runnable);
  return runnable;
}

function parseConfig({ definition }: Plugin, raw: Record<string, unknown>): Record<string, unknown> {
  if (!definition.configSchema) return raw;
  const parsed = v.safeParse(definition.configSchema, raw);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new CallerMistake(`The plugin's configuration is not valid: ${v.getDotPath(issue) ?? "plugin_config"} must be ${issue.expected ?? "another value"}.`);
}

/** Aborts on the first of: the platform hangs up, the plugin's time-out, the deadline. */
function stopper(manifest: Manifest, runtime: Runtime): { signal: AbortSignal; deadlineAt: number; clear(): void } {
  const controller = new AbortController();
  // Every parallel branch listens; a graph with more than ten is no leak.
  setMaxListeners(0, controller.signal);
  const ownMs = manifest.timeout_seconds * 1000;
  const givenMs = runtime.timeLeftMs ?? Number.POSITIVE_INFINITY;
  const limitMs = Math.max(Math.min(ownMs, givenMs), 0);
  // Made when it is needed: an error with its stack costs more than the rest of this function.
  const reason = () => (givenMs < ownMs - DEADLINE_SLACK_MS ? new Stopped("deadline", "the deadline passed") : new Stopped("time_limit", "the time-out passed"));
  const timer = setTimeout(() => controller.abort(reason()), limitMs);
  const onAbort = () => controller.abort(runtime.signal.reason);
  if (runtime.signal.aborted) onAbort();
  else runtime.signal.addEventListener("abort", onAbort, { once: true });
  return {
    signal: controller.signal,
    deadlineAt: performance.now() + limitMs,
    clear() {
      clearTimeout(timer);
      runtime.signal.removeEventListener("abort", onAbort);
    },
  };
}

/** PostgreSQL stores neither NUL nor half of a surrogate pair; losing one character is better than losing a paid result. */
function storable(text: string): string {
  if (!/\\u(?:0000|d[89a-f])/i.test(text)) return text;
  return JSON.stringify(JSON.parse(text, (_key, value: unknown) => (typeof value === "string" ? Buffer.from(value).toString().replaceAll("\0", "\uFFFD") : value)));
}

function validate(envelope: unknown): OutputEnvelope {
  const first = v.safeParse(OutputEnvelope, envelope);
  if (!first.success) {
    const [issue] = first.issues;
    throw new InvalidResult(`${v.getDotPath(issue) ?? "the result"} must be ${issue.expected ?? `valid (${issue.type})`}`);
  }
  let text: string;
  try {
    text = storable(JSON.stringify(first.output));
  } catch (cause) {
    throw new InvalidResult("data must be serialisable as JSON", { cause });
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_OUTPUT_BYTES) throw new InvalidResult(`the result is ${bytes} bytes long, and ${MAX_OUTPUT_BYTES} are allowed; store larger results as artifacts`);
  return v.parse(OutputEnvelope, JSON.parse(text));
}

/** Never throws: a failure is an envelope too. */
export async function execute(plugin: Plugin, input: InputEnvelope, runtime: Runtime, emit: (event: ExecutionEvent) => void): Promise<Ending> {
  const startedAt = performance.now();
  const anthropic = await loadAnthropic();
  const { manifest, definition } = plugin;
  const stop = stopper(manifest, runtime);
  const { secrets, ...context } = input.context;
  const visibleInput: InputEnvelope = { ...input, context: { ...context, secrets: {} } };
  let execution: Execution | undefined;
  let reached: { state: unknown } | undefined;

  const failureOf = (thrown: unknown): Failure =>
    thrown instanceof InvalidResult
      ? { error: `The plugin's result is not valid: ${thrown.message}.`, error_code: "INTERNAL", error_cause: "plugin" }
      : toFailure(thrown, { anthropic, signal: stop.signal, refused: execution?.refused ?? false, node: execution?.failedNode ?? null });

  const envelopeOf = (ending: Partial<OutputEnvelope> & PluginFields) => ({
    task_id: input.task_id,
    envelope_version: ENVELOPE_VERSION,
    ...ending,
    artifacts: [...(execution?.artifacts.values() ?? [])],
    warnings: execution?.warnings ?? [],
    execution_meta: {
      tokens_used: execution?.tokensUsed ?? 0,
      latency_seconds: Math.round(performance.now() - startedAt) / 1000,
      agents_invoked: execution?.nodesRun ?? 0,
      model_used: execution?.modelUsed ?? null,
      // Prices are the platform's knowledge; it fills these two in.
      cost_estimate: 0,
      routing_method: null,
      budget_exceeded: execution?.budgetExceeded ?? false,
    },
  });

  try {
    const config = parseConfig(plugin, context.plugin_config);
    execution = new Execution({
      manifest,
      input: visibleInput,
      secrets,
      config,
      onRefusal: definition.onRefusal ?? "fail",
      runtime,
      anthropic,
      signal: stop.signal,
      deadlineAt: stop.deadlineAt,
      emit,
    });
    stop.signal.throwIfAborted();
    // The run is held against the signal, so a node that ignores its own does not delay the answer.
    const options = { signal: stop.signal, recursionLimit: RECURSION_LIMIT, configurable: { [EXECUTION_KEY]: execution } };
    const state = await runGraph(graphOf(plugin), definition.start(visibleInput), options, (one) => {
      reached = { state: one };
    });
    execution.checkBudget();
    const { status, result, data, confidence, nextSteps } = definition.finish(state, visibleInput);
    return { envelope: validate(envelopeOf({ status, result, data, confidence, next_steps: nextSteps })), isHandedBack: false };
  } catch (thrown) {
    let failure = failureOf(thrown);
    if (failure.error_code === "TOKEN_BUDGET_EXCEEDED" && reached) {
      try {
        const early = definition.finishEarly?.(reached.state, visibleInput);
        if (early) {
          execution?.warn({ code: "TOKEN_BUDGET_EXCEEDED", message: failure.error });
          const { result, data, confidence, nextSteps } = early;
          return { envelope: validate(envelopeOf({ status: "partial", result, data, confidence, next_steps: nextSteps })), thrown, isHandedBack: false };
        }
      } catch (alsoThrown) {
        failure = failureOf(alsoThrown);
      }
    }
    const error = (execution?.redact(failure.error) ?? failure.error).slice(0, 1000);
    const isHandedBack = (execution?.hasYielded ?? false) || (stop.signal.reason instanceof Stopped && stop.signal.reason.why === "shutdown");
    return { envelope: v.parse(OutputEnvelope, envelopeOf({ status: "failed", result: "", confidence: 0, ...failure, error })), thrown, isHandedBack };
  } finally {
    execution?.end();
    stop.clear();
  }
}

type PluginFields = Pick<OutputEnvelope, "status"> & Partial<Pick<PluginResult, "result" | "confidence">>;
