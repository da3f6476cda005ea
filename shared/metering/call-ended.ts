/** Every model call that ended, told once: the one place where logs and counters of the gateway come from. Money never does. */
import type { Metrics } from "../telemetry/metrics.ts";

export interface CallEnded {
  callId: string;
  taskId: string;
  tenantId: string;
  plugin: string;
  node: string | null;
  model: string;
  /** `lost`: the outcome could not be written; the row becomes `unknown`. */
  state: "done" | "failed" | "unknown" | "lost";
  /** Why it failed, as a type of the Messages API or one of ours (`aborted`, `upstream_error`). */
  errorType: string | null;
  /** All four classes together, of this call. */
  tokens: number;
  /** Tokens of the step including this call, and the plugin's budget for them. */
  tokensUsed: number;
  tokenBudget: number;
  costMicroUsd: bigint;
  durationMs: number;
  /** What kept the outcome from being written. */
  cause?: unknown;
}

type Listener = (call: CallEnded) => void;
const listeners = new Set<Listener>();

/** Calls back at the end of every model call of this process, until disposed. The host connects its log and metrics here. */
export function onCallEnded(listener: Listener): Disposable {
  listeners.add(listener);
  return { [Symbol.dispose]: () => void listeners.delete(listener) };
}

export function callEnded(call: CallEnded): void {
  for (const listener of listeners) listener(call);
}

/** Moves the counters. Use it as `onCallEnded((call) => countCall(metrics, call))`. */
export function countCall(metrics: Pick<Metrics, "tokenUsage" | "budgetExceeded">, call: CallEnded): void {
  if (call.tokens > 0) metrics.tokenUsage.inc({ plugin: call.plugin, model: call.model }, call.tokens);
  const before = call.tokensUsed - call.tokens;
  if (call.state === "done" && before <= call.tokenBudget && call.tokensUsed > call.tokenBudget) metrics.budgetExceeded.inc({ plugin: call.plugin });
}
