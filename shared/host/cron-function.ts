/** Runs one scheduled function. Two runs at once in one instance are one too many: the second answers at once. */
import { Refusal } from "../errors.ts";
import type { CronFunction } from "./declare.ts";
import { replyToError, requestInfo, toResponse } from "./http-function.ts";
import { requestEnded } from "./request-span.ts";
import type { Runtime } from "./runtime.ts";

export function cronHandler(fn: CronFunction, runtime: Runtime): (request: Request) => Promise<Response> {
  let running = false;
  return async (request) => {
    const startedAt = performance.now();
    const info = requestInfo(request, runtime);
    const seen = { request_id: info.requestId, function_name: fn.name };
    if (running) return toResponse({ status: 204 }, info.requestId, runtime);
    running = true;
    runtime.requestStarted();
    let response: Response;
    try {
      if (runtime.draining.aborted) throw new Refusal("SERVICE_UNAVAILABLE", { message: "This instance is stopping.", retryAfterSec: 1 });
      await fn.run({ signal: runtime.draining, ...runtime.resources } as unknown as Parameters<CronFunction["run"]>[0]);
      response = toResponse({ status: 204 }, info.requestId, runtime);
    } catch (error) {
      response = toResponse(replyToError(error, info.requestId, runtime, seen), info.requestId, runtime);
    } finally {
      running = false;
      runtime.requestFinished();
    }
    const durationMs = performance.now() - startedAt;
    runtime.metrics.requests.observe({ function: fn.name, status: String(response.status) }, durationMs / 1000);
    requestEnded(runtime, info, { name: fn.name, status: response.status, durationMs, seen });
    return response;
  };
}
