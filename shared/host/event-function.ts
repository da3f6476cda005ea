/** Runs one event function for a CloudEvent from the bridge: 204 acknowledges, 503 asks for another delivery, 4xx is dead. */
import { CloudEvent, HTTP } from "cloudevents";
import * as v from "valibot";
import { Refusal } from "../errors.ts";
import { childOf, parentOf, traceIdOf } from "../telemetry/trace.ts";
import { required } from "./config.ts";
import type { EventFunction, RequestInfo } from "./declare.ts";
import { checkServiceToken } from "./guard.ts";
import { replyToError, requestInfo, toResponse } from "./http-function.ts";
import { readBytes } from "./request-body.ts";
import { requestEnded } from "./request-span.ts";
import type { Runtime } from "./runtime.ts";

const MAX_EVENT_BYTES = 16 * 1024;

export function eventHandler(fn: EventFunction, runtime: Runtime): (request: Request) => Promise<Response> {
  return async (request) => {
    const startedAt = performance.now();
    const info = requestInfo(request, runtime);
    const seen = { request_id: info.requestId, function_name: fn.name, trace_id: traceIdOf(info.traceparent), event_id: "" };
    runtime.requestStarted();
    let response: Response;
    try {
      checkServiceToken(request.headers, required(runtime.config, "SERVICE_TOKEN"));
      if (runtime.draining.aborted) throw new Refusal("SERVICE_UNAVAILABLE", { message: "This instance is stopping.", retryAfterSec: 1 });
      const { data, event } = await readEvent(fn, request, info);
      seen.event_id = event.id;
      seen.trace_id = traceIdOf(info.traceparent);
      // The declaration's types tie `needs` and the data's schema to the handler; here they are only data.
      const args = { data, event, signal: runtime.stopping, ...runtime.resources } as unknown as Parameters<EventFunction["handle"]>[0];
      const result = await fn.handle(args);
      response =
        result.outcome === "done"
          ? toResponse({ status: 204 }, info.requestId, runtime)
          : toResponse({ status: 503, headers: { "retry-after": String(Math.max(1, Math.ceil(result.retryAfterSec))) } }, info.requestId, runtime);
    } catch (error) {
      response = toResponse(replyToError(error, info.requestId, runtime, seen), info.requestId, runtime);
    } finally {
      runtime.requestFinished();
    }
    const ms = performance.now() - startedAt;
    runtime.metrics.requests.observe({ function: fn.name, status: String(response.status) }, ms / 1000);
    requestEnded(runtime, info, { name: fn.name, kind: "consumer", status: response.status, durationMs: ms, seen });
    runtime.log(response.status >= 500 ? "warn" : "debug", "event handled", { ...seen, status: response.status, duration_ms: Math.round(ms * 100) / 100 });
    return response;
  };
}

async function readEvent(fn: EventFunction, request: Request, info: RequestInfo) {
  const body = Buffer.from(await readBytes(request, MAX_EVENT_BYTES)).toString("utf8");
  try {
    const { data, ...event } = isBinaryMode(request.headers) ? readBinary(request.headers, body) : readStructured(request.headers, body);
    if (event.type !== fn.event) throw new Refusal("INVALID_INPUT", { message: `This function handles ${fn.event}.` });
    // The delivery's own context comes as a header; one that only the event carries is the ringer's.
    if (info.parent === null) {
      info.parent = parentOf(event.traceparent);
      info.traceparent = childOf(info.parent ?? info.traceparent);
    }
    return { data: v.parse(fn.data, data), event: { ...event, attempt: Number(event.attempt) || 1, traceparent: info.traceparent } };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal("INVALID_INPUT", { message: "This is not a CloudEvent that the function understands.", cause: error });
  }
}

const NonEmpty = v.pipe(v.string(), v.minLength(1));
const Event = v.object({
  specversion: v.literal("1.0"),
  id: NonEmpty,
  source: NonEmpty,
  type: NonEmpty,
  subject: v.optional(v.string(), ""),
  attempt: v.optional(v.union([v.string(), v.number()])),
  traceparent: v.optional(v.string()),
  data: v.unknown(),
});

const isBinaryMode = (headers: Headers) => headers.has("ce-id") && !headers.get("content-type")?.startsWith("application/cloudevents");

/** Attributes in headers, the data as the body: what the bridge sends for every task. The library would take a tenth of a short task's time for it. */
function readBinary(headers: Headers, body: string) {
  const attribute = (name: string) => headers.get(`ce-${name}`) ?? undefined;
  return v.parse(Event, {
    specversion: attribute("specversion"),
    id: attribute("id"),
    source: attribute("source"),
    type: attribute("type"),
    subject: attribute("subject"),
    attempt: attribute("attempt"),
    traceparent: attribute("traceparent"),
    data: JSON.parse(body),
  });
}

function readStructured(headers: Headers, body: string) {
  const parsed = HTTP.toEvent({ headers: Object.fromEntries(headers), body });
  if (!(parsed instanceof CloudEvent)) throw new Refusal("INVALID_INPUT", { message: "Send one event at a time." });
  parsed.validate();
  return v.parse(Event, parsed);
}
