/** Runs one HTTP function: key, limit, scope, body, handler, reply — in that order, so that nobody without a key learns anything. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Admission } from "../access/admission.ts";
import type { Caller } from "../access/caller.ts";
import { errorBody, Refusal } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { LogFields } from "../telemetry/log.ts";
import { childOf, parentOf, traceIdOf, traceparentOf } from "../telemetry/trace.ts";
import { required } from "./config.ts";
import type { HttpFunction, Reply, RequestInfo, Schema } from "./declare.ts";
import { authenticate, checkEnvironment, checkRate, checkScope, checkServiceToken, rateHeaders } from "./guard.ts";
import { checkContentType, parseJson, readBytes } from "./request-body.ts";
import { requestEnded } from "./request-span.ts";
import { finishWithBody } from "./response-body.ts";
import type { Runtime } from "./runtime.ts";

const DEFAULT_MAX_BODY_BYTES = 64 * 1024;
/** Bodies up to this size are read before the key is checked, which lets one Redis call do key, limit and route. */
const READ_AHEAD_BYTES = 64 * 1024;
const CALLER_REQUEST_ID = /^[A-Za-z0-9_-]{8,64}$/;

export function httpHandler(fn: HttpFunction, runtime: Runtime): (request: Request, params: Record<string, string>) => Promise<Response> {
  const maxBodyBytes = fn.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES;

  return async (request, rawParams) => {
    const startedAt = performance.now();
    const info = requestInfo(request, runtime);
    const seen: LogFields = { request_id: info.requestId, trace_id: traceIdOf(info.traceparent), function_name: fn.name, method: info.method, route: fn.route };
    info.note = (fields) => void Object.assign(seen, fields);
    let limitHeaders: Record<string, string> = {};
    let reply: Reply;
    runtime.requestStarted();
    try {
      const hinted = fn.routeHint ? await readAhead(fn, request, info) : undefined;
      let caller: Caller | undefined;
      if (fn.scope === "service") caller = checkServiceToken(request.headers, required(runtime.config, "SERVICE_TOKEN"));
      else if (fn.scope !== "public") {
        if (!runtime.doorkeeper) throw new Error("a guarded function needs a doorkeeper");
        const admission = await authenticate(runtime.doorkeeper, runtime.metrics, request.headers, hinted?.hint);
        caller = admission.caller;
        info.admission = admission;
        info.admitToPlugin = pluginAdmission(runtime, admission);
        seen.tenant_id = caller.tenantId;
        limitHeaders = rateHeaders(admission.rate, Date.now());
        checkRate(admission.rate, caller, runtime.metrics);
        if (fn.scope !== "any") checkScope(caller, fn.scope);
        if (fn.liveKeyOnly) checkEnvironment(caller);
      }
      const params = fn.params ? parseParams(fn.params, rawParams) : undefined;
      const query = fn.query ? parseQuery(fn.query, request.url) : undefined;
      // A body can be read once, and an empty one was read as well.
      if (fn.body && !request.bodyUsed) info.bodyBytes = await readBytes(request, maxBodyBytes);
      if (fn.body) checkContentType(request.headers);
      const body = fn.body ? parseBody(fn.body, hinted && "value" in hinted ? hinted.value : parseJson(info.bodyBytes)) : undefined;
      // The declaration's types tie `needs` and the schemas to the handler; here they are only data.
      const args = { params, query, body, caller, request: info, ...runtime.resources } as unknown as Parameters<HttpFunction["handle"]>[0];
      reply = await fn.handle(args);
    } catch (error) {
      reply = replyToError(error, info.requestId, runtime, seen);
    }
    const ms = performance.now() - startedAt;
    runtime.metrics.requests.observe({ function: fn.name, status: String(reply.status) }, ms / 1000);
    requestEnded(runtime, info, { name: fn.route, status: reply.status, durationMs: ms, seen });
    runtime.log(reply.status >= 500 ? "error" : "info", "request finished", { ...seen, status: reply.status, duration_ms: Math.round(ms * 100) / 100 });
    const response = toResponse(reply, info.requestId, runtime, limitHeaders);
    // Looking at the body of a light response would make it a heavy one; only a stream has a later end.
    if (reply.raw instanceof ReadableStream) return finishWithBody(response, () => runtime.requestFinished());
    runtime.requestFinished();
    return response;
  };
}

export function requestInfo(request: Request, runtime: Runtime): RequestInfo {
  const parent = parentOf(request.headers.get("traceparent"));
  const given = request.headers.get("x-request-id");
  let signal: AbortSignal | undefined;
  return {
    requestId: given && CALLER_REQUEST_ID.test(given) ? given : newRequestId(),
    parent,
    traceparent: childOf(traceparentOf(parent)),
    method: request.method,
    path: pathOf(request.url),
    // Made when it is asked for: few handlers wait for anything, and a signal costs as much as the key's look-up.
    get signal() {
      signal ??= request.signal;
      return signal;
    },
    set signal(given) {
      signal = given;
    },
    draining: runtime.draining,
    admitToPlugin: () => Promise.reject(new Error("only a request with a key has a plugin's rate window")),
    note: () => {},
    header: (name) => request.headers.get(name) ?? undefined,
    bodyBytes: new Uint8Array(),
  };
}

/** The window that the guard has counted in is that of the first plugin; each further one is counted once. */
function pluginAdmission(runtime: Runtime, admission: Admission): (plugin: string) => Promise<void> {
  const counted = new Set<string>();
  return async (plugin) => {
    if (counted.has(plugin)) return;
    const known = counted.size === 0 ? admission.pluginRate : null;
    counted.add(plugin);
    const rate = known ?? (await runtime.doorkeeper?.admitToPlugin(admission.caller, plugin));
    if (rate) checkRate(rate, admission.caller, runtime.metrics);
  };
}

function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const end = url.search(/[?#]/);
  return url.slice(start, end < 0 ? undefined : end);
}

/** Reads a small body early and looks in it for what the admission call may look up. What is wrong with it is said after the key was checked. */
async function readAhead(fn: HttpFunction, request: Request, info: RequestInfo) {
  const length = Number(request.headers.get("content-length") ?? Number.POSITIVE_INFINITY);
  if (!(length <= READ_AHEAD_BYTES)) return undefined;
  info.bodyBytes = await readBytes(request, READ_AHEAD_BYTES);
  try {
    const value = parseJson(info.bodyBytes);
    const hint = fn.routeHint?.(value);
    return { value, hint: hint && { plugin: hint.plugin, commandDigest: hint.command } };
  } catch {
    return undefined;
  }
}

/** A parameter that does not parse names nothing, so it answers like an unknown one. */
function parseParams(schema: Schema, raw: Record<string, string>): unknown {
  const parsed = v.safeParse(schema, raw);
  if (!parsed.success) throw new Refusal("NOT_FOUND");
  return parsed.output;
}

function parseQuery(schema: Schema, url: string): unknown {
  const start = url.indexOf("?");
  const search = new URLSearchParams(start < 0 ? "" : url.slice(start));
  // Without a prototype, so that `__proto__` and `constructor` are names like any other.
  const values: Record<string, string> = Object.create(null);
  for (const [name, value] of search) {
    if (name in values) throw new Refusal("INVALID_INPUT", { message: `The query parameter ${name.slice(0, 60)} is given twice.` });
    if (value.includes("\0")) throw new Refusal("INVALID_INPUT", { message: "Query parameters must not contain NUL characters." });
    values[name] = value;
  }
  return parse(schema, values, "The query");
}

/** valibot takes an array for an object whose members are all optional. */
function parseBody(schema: Schema, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refusal("INVALID_INPUT", { message: "The body must be a JSON object." });
  return parse(schema, value, "The body");
}

function parse(schema: Schema, value: unknown, what: string): unknown {
  const parsed = v.safeParse(schema, value, { abortPipeEarly: true });
  if (parsed.success) return parsed.output;
  const issues = parsed.issues.slice(0, 10).map((issue) => ({ path: (v.getDotPath(issue) ?? "").slice(0, 200), message: plainMessage(issue) }));
  const first = issues[0];
  throw new Refusal("INVALID_INPUT", { message: `${what} is not valid${first ? `: ${first.path ? `${first.path}: ` : ""}${first.message}` : ""}`, details: { issues } });
}

/** valibot's default messages quote what was received; a reply must not echo untrusted input at length. */
function plainMessage(issue: v.BaseIssue<unknown>): string {
  if (issue.type === "strict_object" && issue.expected === "never") return "is not a known field";
  if (issue.received === "undefined") return "is required";
  return issue.message.replace(/ but received .*$/su, "").slice(0, 200);
}

export function replyToError(error: unknown, requestId: string, runtime: Runtime, seen: LogFields): Reply {
  if (error instanceof Refusal) {
    if (error.status >= 500) runtime.log("warn", "request refused", { ...seen, error_code: error.code, error: error.cause ?? error });
    seen.error_code = error.code;
    return { status: error.status, body: errorBody(error.code, error.message, requestId, error.details), headers: error.headers };
  }
  runtime.log("error", "request failed", { ...seen, error });
  seen.error_code = "INTERNAL";
  const internal = new Refusal("INTERNAL");
  return { status: internal.status, body: errorBody("INTERNAL", internal.message, requestId) };
}

const NO_STORE = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

export function toResponse(reply: Reply, requestId: string, runtime: Runtime, more: Record<string, string> = {}): Response {
  const headers: Record<string, string> = { ...NO_STORE, ...more, ...reply.headers, "x-request-id": requestId };
  // A client that keeps its connection would otherwise send its next request to a process that is gone.
  if (runtime.draining.aborted) headers.connection = "close";
  if (reply.raw !== undefined) return new Response(reply.raw, { status: reply.status, headers });
  if (reply.body === undefined) return new Response(null, { status: reply.status, headers });
  headers["content-type"] = "application/json; charset=utf-8";
  return new Response(JSON.stringify(reply.body), { status: reply.status, headers });
}

/** The digest under which bodies are compared for `Idempotency-Key`: over the bytes as they came. */
export function bodyDigest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
