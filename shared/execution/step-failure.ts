/** What a failed call of a plugin means for its step. */
import type { OutputEnvelope } from "../sdk/src/envelopes.ts";
import type { StoredError } from "../tasks/task-view.ts";
import type { PluginFailure } from "./plugin-client.ts";

export interface Failure {
  code: string;
  message: string;
  cause: StoredError["cause"];
  /** Whether another try may help. */
  isTransient: boolean;
  /** The plugin has not begun with the task. */
  isUnreached: boolean;
  /** The plugin's process ended with the task in it, and this task or another one in it may be why. */
  isCutOff: boolean;
  /** How long the one who refused asks to wait. */
  retryAfterMs: number | null;
  /** What the plugin gave along with its failure: artifacts, warnings. */
  output: OutputEnvelope | null;
}

/** A deadline this close to the plugin's own time-out is that time-out. */
const DEADLINE_SLACK_MS = 5_000;

/** The failure that a plugin tells of itself. */
export function failureOf(output: OutputEnvelope): Failure {
  const code = output.error_code ?? "INTERNAL";
  const cause = output.error_cause ?? "plugin";
  return {
    code,
    cause,
    message: output.error ?? "The plugin failed without saying why.",
    // With the caller as the cause, a service of the caller's own is away: that passes too, and counts against nobody.
    isTransient: code === "PLUGIN_UNAVAILABLE" || (code === "PLUGIN_TIMEOUT" && cause === "plugin"),
    isUnreached: false,
    isCutOff: false,
    retryAfterMs: typeof output.retry_after_seconds === "number" ? output.retry_after_seconds * 1000 : null,
    output,
  };
}

/** The failure of a call that brought no answer of the plugin. */
export function callFailure({ code, message, blame, isTransient, isUnreached, isCutOff, retryAfterMs }: PluginFailure): Failure {
  return { code, message, cause: blame, isTransient, isUnreached, isCutOff, retryAfterMs, output: null };
}

/** Nothing came in time. With less time than its manifest asks for, that says nothing against the plugin. */
export function timedOut(timeoutMs: number, ownTimeoutMs: number): Failure {
  const isCallers = timeoutMs < ownTimeoutMs - DEADLINE_SLACK_MS;
  return {
    code: "PLUGIN_TIMEOUT",
    message: isCallers ? "The task's deadline passed before the plugin was done." : `The plugin did not finish within ${Math.round(timeoutMs / 1000)} seconds.`,
    cause: isCallers ? "caller" : "plugin",
    isTransient: !isCallers,
    isUnreached: false,
    isCutOff: false,
    retryAfterMs: null,
    output: null,
  };
}

/** What passes by itself and has nothing to do with this task: it waits for that in the queue, instead of failing. */
export function isOutage({ code, cause, isTransient, isUnreached }: Failure): boolean {
  return isTransient && (isUnreached || (code === "PLUGIN_UNAVAILABLE" && cause !== "plugin"));
}
