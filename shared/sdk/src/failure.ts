/** Reads from what was thrown whose fault a failed execution is, and says it without repeating the error's own text. */
import type { OutputEnvelope } from "./envelopes.ts";
import { CallerMistake, ContentPolicyRefusal, GatewayError, Stopped, UpstreamUnavailable } from "./errors.ts";
import type { loadAnthropic } from "./metered-anthropic.ts";

export interface Failure {
  error: string;
  error_code: string;
  error_cause: NonNullable<OutputEnvelope["error_cause"]>;
  retry_after_seconds?: number;
}

/** When several branches threw, the first of these that is among them tells what to do next. */
const PRECEDENCE = ["CONTENT_POLICY_VIOLATION", "TOKEN_BUDGET_EXCEEDED", "INVALID_INPUT", "CONTEXT_WINDOW_OVERFLOW", "PLUGIN_TIMEOUT", "PLUGIN_UNAVAILABLE", "INTERNAL"];

const UPSTREAM_TYPES = new Set(["overloaded_error", "api_error", "rate_limit_error", "timeout_error"]);
const UPSTREAM_STATUS = new Set([401, 403, 408, 409, 425, 429]);
const MAX_DEPTH = 5;

const stops: Record<Stopped["why"], Failure> = {
  time_limit: { error: "The plugin took longer than its time-out.", error_code: "PLUGIN_TIMEOUT", error_cause: "plugin" },
  deadline: { error: "The task's deadline passed before the plugin was done.", error_code: "PLUGIN_TIMEOUT", error_cause: "caller" },
  gone: { error: "The platform ended the execution.", error_code: "PLUGIN_UNAVAILABLE", error_cause: "platform" },
  shutdown: { error: "The plugin's process is being stopped; another one can run the task.", error_code: "PLUGIN_UNAVAILABLE", error_cause: "platform" },
};

const unavailable = (error: string, error_cause: "caller" | "upstream" | "platform", retryAfterSec?: number): Failure => ({
  error,
  error_code: "PLUGIN_UNAVAILABLE",
  error_cause,
  ...(retryAfterSec !== undefined && { retry_after_seconds: retryAfterSec }),
});

/** Refusals of the gateway's own, which the provider never saw. */
const GATEWAY_CODES = new Set(["SERVICE_UNAVAILABLE", "CONFLICT", "CANCELLED", "LEASE_LOST", "INTERNAL"]);

/** Seconds of a Retry-After header, which is a number or a date. */
function retryAfterOf(headers: Headers | undefined): number | undefined {
  const text = headers?.get("retry-after") ?? "";
  if (text === "") return undefined;
  const seconds = /^\d{1,12}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(seconds, 0) : undefined;
}

type Anthropic = Awaited<ReturnType<typeof loadAnthropic>>;

function fromModelError(error: unknown, { APIError, APIConnectionError }: Anthropic): Failure | null {
  if (error instanceof APIConnectionError) return unavailable("The model could not be reached.", "platform");
  if (!(error instanceof APIError)) return null;
  if (error.errorCode === "TOKEN_BUDGET_EXCEEDED" || error.status === 402) {
    return { error: "The task reached the most that it may spend, and was stopped.", error_code: "TOKEN_BUDGET_EXCEEDED", error_cause: "caller" };
  }
  if (error.errorCode === "CONTENT_POLICY_VIOLATION") return refusal;
  if (error.status === 413 || (error.status === 400 && /prompt is too long|context (window|length)|input length/i.test(error.message))) {
    return { error: "The input does not fit into the model's context.", error_code: "CONTEXT_WINDOW_OVERFLOW", error_cause: "caller" };
  }
  const isUpstream = UPSTREAM_TYPES.has(error.type ?? "") || UPSTREAM_STATUS.has(error.status ?? 0) || (error.status ?? 0) >= 500;
  const cause = GATEWAY_CODES.has(error.errorCode ?? "") ? "platform" : "upstream";
  return isUpstream ? unavailable(`The model did not answer (${error.status ?? error.type}).`, cause, retryAfterOf(error.headers)) : null;
}

const refusal: Failure = { error: "The model refused this content.", error_code: "CONTENT_POLICY_VIOLATION", error_cause: "caller" };

/** An answer that breaks off in the middle reaches the node as undici's own error, without the client's wrapping. */
function isBrokenConnection(error: Error): boolean {
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return code.startsWith("UND_ERR_") && !code.includes("INVALID");
}

function fromError(error: unknown, anthropic: Anthropic): Failure | null {
  if (error instanceof Stopped) return stops[error.why];
  if (error instanceof CallerMistake) return { error: error.message || "The plugin cannot work on this input.", error_code: "INVALID_INPUT", error_cause: "caller" };
  if (error instanceof ContentPolicyRefusal) return refusal;
  if (error instanceof UpstreamUnavailable) {
    return unavailable(error.message || "A service that the plugin needs did not answer.", error.isCallers ? "caller" : "upstream");
  }
  if (error instanceof GatewayError) {
    const isOurs = error.status === null || error.status >= 500 || UPSTREAM_STATUS.has(error.status);
    return isOurs && error.status !== 403 ? unavailable("A store of the platform did not answer.", "platform") : null;
  }
  const model = fromModelError(error, anthropic);
  if (model) return model;
  return error instanceof Error && isBrokenConnection(error) ? unavailable("A connection broke off in the middle of an answer.", "upstream") : null;
}

/** Every known failure in an error, its causes, and the errors that an AggregateError of parallel branches gathers. */
function collect(error: unknown, anthropic: Anthropic, depth = 0): Failure[] {
  if (depth > MAX_DEPTH) return [];
  if (error instanceof AggregateError) return error.errors.flatMap((one) => collect(one, anthropic, depth + 1));
  const own = fromError(error, anthropic);
  if (own) return [own];
  return error instanceof Error && error.cause !== undefined ? collect(error.cause, anthropic, depth + 1) : [];
}

/** The class of an error, as an identifier that cannot carry data. */
export function errorType(error: unknown): string {
  const name = error instanceof AggregateError ? error.errors.map(errorType).join(",") : error instanceof Error ? error.name : typeof error;
  return /^[\w,]{1,120}$/.test(name) ? name : "Error";
}

export function toFailure(thrown: unknown, about: { anthropic: Anthropic; signal: AbortSignal; refused: boolean; node: string | null }): Failure {
  // After an abort every branch throws something; only the reason for the abort says what happened.
  const cause = about.signal.aborted ? about.signal.reason : thrown;
  const all = collect(cause, about.anthropic).sort((a, b) => PRECEDENCE.indexOf(a.error_code) - PRECEDENCE.indexOf(b.error_code));
  const [known] = all;
  if (known) {
    // Of several that ask to wait, the longest wait is the one that helps.
    const waits = all.flatMap(({ error_code, retry_after_seconds: seconds }) => (error_code === known.error_code && seconds !== undefined ? [seconds] : []));
    return waits.length > 0 ? { ...known, retry_after_seconds: Math.max(...waits) } : known;
  }
  // A node that trips over the empty answer of a refusal was refused, whatever it threw.
  if (about.refused) return refusal;
  const isLoop = cause instanceof Error && "lc_error_code" in cause && cause.lc_error_code === "GRAPH_RECURSION_LIMIT";
  if (isLoop) return { error: "The plugin's graph went round without coming to an end.", error_code: "INTERNAL", error_cause: "plugin" };
  const where = about.node ? ` in its node ${about.node.slice(0, 100)}` : "";
  return { error: `The plugin failed${where} (${errorType(cause)}).`, error_code: "INTERNAL", error_cause: "plugin" };
}
