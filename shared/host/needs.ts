/** What a function needs beyond its own `needs`: the guard at its door reads resources and settings too. */

import type { VariableName } from "./config.ts";
import type { AnyFunction } from "./declare.ts";
import type { ResourceName } from "./resources.ts";

/** Everything that must be open before the function can answer. */
export function allNeeds(fn: AnyFunction): ResourceName[] {
  const needs = new Set<ResourceName>(fn.needs);
  if (fn.kind === "http" && fn.scope !== "public" && fn.scope !== "service") for (const need of ["db", "redis"] as const) needs.add(need);
  if (fn.kind === "gateway") needs.add("capabilities");
  return [...needs].sort();
}

/** Settings that the host itself reads for this function. */
export function hostVariables(fn: AnyFunction): VariableName[] {
  const always: VariableName[] = ["LOG_LEVEL", "DRAIN_MS"];
  if (fn.kind === "event" || (fn.kind === "http" && fn.scope === "service")) always.push("SERVICE_TOKEN");
  return always;
}

/** True when the function answers on the public host. */
export function isPublic(fn: AnyFunction): boolean {
  return fn.kind === "http" && fn.scope !== "service";
}
