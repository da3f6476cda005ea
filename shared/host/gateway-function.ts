/** Runs a door for plugins: checks the capability, then hands the raw request to the route. */
import { errorBody, Refusal } from "../errors.ts";
import { publicId } from "../ids.ts";
import { traceIdOf } from "../telemetry/trace.ts";
import type { GatewayFunction, Route } from "./declare.ts";
import { checkCapability } from "./guard.ts";
import { replyToError, requestInfo } from "./http-function.ts";
import { readBytes } from "./request-body.ts";
import { requestEnded } from "./request-span.ts";
import { finishWithBody } from "./response-body.ts";
import type { Runtime } from "./runtime.ts";

export function gatewayHandler(fn: GatewayFunction, route: Route, runtime: Runtime): (request: Request, params: Record<string, string>) => Promise<Response> {
  const handle = fn.routes[route];
  if (!handle) throw new Error(`${fn.name} has no route ${route}`);
  return async (request, params) => {
    const startedAt = performance.now();
    // A call that outlives the drain is cut while there is still time to write down how it ended.
    const info = { ...requestInfo(request, runtime), signal: AbortSignal.any([request.signal, runtime.stopping]) };
    const seen: Record<string, string> = { request_id: info.requestId, function_name: fn.name, trace_id: traceIdOf(info.traceparent), route };
    let response: Response;
    runtime.requestStarted();
    try {
      if (!runtime.capabilities) throw new Error("a gateway needs the capability signer");
      const capability = checkCapability(request.headers, fn.audience, runtime.capabilities, Date.now());
      Object.assign(seen, { tenant_id: capability.tenant, task_id: publicId("task", capability.task), plugin_name: capability.plugin });
      info.bodyBytes = await readBytes(request, fn.maxBodyBytes);
      response = await handle({ capability, request, params, info, ...runtime.resources } as unknown as Parameters<typeof handle>[0]);
    } catch (error) {
      const reply = replyToError(error, info.requestId, runtime, seen);
      const { code, message } = error instanceof Refusal ? error : new Refusal("INTERNAL");
      response = fn.refusal?.(reply.status, code, message, info.requestId) ?? Response.json(errorBody(code, message, info.requestId), { status: reply.status });
      for (const [name, value] of Object.entries(reply.headers ?? {})) response.headers.set(name, value);
    }
    response = finishWithBody(response, () => runtime.requestFinished());
    runtime.metrics.requests.observe({ function: fn.name, status: String(response.status) }, (performance.now() - startedAt) / 1000);
    requestEnded(runtime, info, { name: route, status: response.status, durationMs: performance.now() - startedAt, seen });
    runtime.log(response.status >= 500 ? "warn" : "debug", "gateway call finished", { ...seen, status: response.status, duration_ms: Math.round(performance.now() - startedAt) });
    return response;
  };
}
