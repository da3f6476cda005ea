/** The span of a request that has ended. Costs nothing where no collector is set. */
import type { LogFields } from "../telemetry/log.ts";
import type { EndedSpan } from "../telemetry/spans.ts";
import type { RequestInfo } from "./declare.ts";
import type { Runtime } from "./runtime.ts";

interface Ended {
  /** The route's pattern, or the function's name. */
  name: string;
  kind?: EndedSpan["kind"];
  status: number;
  durationMs: number;
  seen: LogFields;
}

export function requestEnded(runtime: Runtime, info: RequestInfo, { name, kind = "server", status, durationMs, seen }: Ended): void {
  runtime.spans?.ended({
    name,
    kind,
    traceparent: info.traceparent,
    parent: info.parent,
    startedAtMs: Date.now() - durationMs,
    durationMs,
    attributes: {
      "http.request.method": info.method,
      "http.response.status_code": status,
      "aau.request_id": info.requestId,
      ...(seen.function_name && { "faas.name": seen.function_name }),
      ...(seen.route && { "http.route": seen.route }),
      ...(seen.tenant_id && { "aau.tenant_id": seen.tenant_id }),
      ...(seen.task_id && { "aau.task_id": seen.task_id }),
      ...(seen.plugin_name && { "aau.plugin": seen.plugin_name }),
      ...(seen.routing_method && { "aau.routing_method": seen.routing_method }),
      ...(seen.error_code && { "error.type": seen.error_code }),
    },
    isError: status >= 500,
  });
}
