/** What a function needs beyond its own `needs`: the guard at its door reads resources and settings too. */

import type { VariableName } from "./config.ts";
import type { AnyFunction } from "./declare.ts";
import type { ResourceName } from "./resources.ts";

/** Where the host sends traces. */
export const TRACE_VARIABLES = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER_ARG"] as const satisfies VariableName[];

/** Everything that must be open before the function can answer. */
export function allNeeds(fn: AnyFunction): ResourceName[] {
  const needs = new Set<ResourceName>(fn.needs);
  if (fn.kind === "http" && fn.scope !== "public" && fn.scope !== "service") for (const need of ["db", "redis"] as const) needs.add(need);
  if (fn.kind === "gateway") needs.add("capabilities");
  return [...needs].sort();
}

/** Settings that the host itself reads for this function. */
export function hostVariables(fn: AnyFunction): VariableName[] {
  const always: VariableName[] = ["LOG_LEVEL", "DRAIN_MS", ...TRACE_VARIABLES];
  if (fn.kind === "event" || (fn.kind === "http" && fn.scope === "service")) always.push("SERVICE_TOKEN");
  return always;
}

/** True when the function answers on the public host. */
export function isPublic(fn: AnyFunction): boolean {
  return fn.kind === "http" && fn.scope !== "service";
}
