/** The environment of a service: exactly the settings of the resources that it needs, and of secrets no others. */
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import * as v from "valibot";
import { VARIABLES, type VariableName } from "../../shared/host/config.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { allNeeds, hostVariables } from "../../shared/host/needs.ts";
import type { Opener } from "../../shared/host/resources.ts";
import { openerFile } from "../opener-file.ts";
import { CONFIG_MAP, PLUGIN_CONFIG_MAP } from "./cluster.ts";

/** Their absence says something: no provider key is the offline model, no bucket key is the pod's own identity. */
const MAY_BE_ABSENT: ReadonlySet<VariableName> = new Set([
  "ANTHROPIC_API_KEY",
  "OPENAI_API_KEY",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "SECRETS_OTHER_KEYS",
  "OTEL_EXPORTER_OTLP_HEADERS",
] as const);

export const VARIABLE_NAMES = Object.keys(VARIABLES).filter((name): name is VariableName => name in VARIABLES);

export function isSecret(name: VariableName): boolean {
  return "secret" in VARIABLES[name];
}

/** One Secret for each secret setting, so that a service can be given one without another. */
export function secretName(name: VariableName): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** The value that holds when nothing is set; undefined where there is none. */
export function defaultOf(name: VariableName): string | undefined {
  const parsed = v.safeParse(VARIABLES[name].schema, undefined);
  return parsed.success && parsed.output !== undefined ? String(parsed.output) : undefined;
}

async function openerOf(need: ReturnType<typeof allNeeds>[number]): Promise<Opener<unknown>> {
  const module: { opener: Opener<unknown> } = await import(/* @vite-ignore */ new URL(`../../${openerFile(need)}`, import.meta.url).href);
  return module.opener;
}

export async function variablesOf(fn: AnyFunction): Promise<VariableName[]> {
  const names = new Set<VariableName>(hostVariables(fn));
  for (const need of allNeeds(fn)) for (const name of (await openerOf(need)).variables) names.add(name);
  return [...names].sort();
}

export function envOf(names: readonly VariableName[]): IEnvVar[] {
  return names.map((name) => {
    if (isSecret(name)) return { name, valueFrom: { secretKeyRef: { name: secretName(name), key: name, ...(MAY_BE_ABSENT.has(name) && { optional: true }) } } };
    return { name, valueFrom: { configMapKeyRef: { name: CONFIG_MAP, key: name, ...(defaultOf(name) === undefined && { optional: true }) } } };
  });
}

export const PLUGIN_VARIABLES = { LLM_GATEWAY_URL: "llm-gateway", SCOPE_GATEWAY_URL: "scope-gateway" } as const;

/** A plugin is told where the platform's doors are, and nothing else. */
export function pluginEnv(): IEnvVar[] {
  return Object.keys(PLUGIN_VARIABLES).map((name) => ({ name, valueFrom: { configMapKeyRef: { name: PLUGIN_CONFIG_MAP, key: name } } }));
}
