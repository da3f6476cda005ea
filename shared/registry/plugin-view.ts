/** Plugins as the outside sees them. */
import * as v from "valibot";
import type { CatalogueEntry } from "./catalogue.ts";

/** `open`: it failed several times in a row and is not called for a minute; tasks for it wait. */
export const Circuit = v.picklist(["closed", "half_open", "open"]);

export const PluginSummary = v.strictObject({
  name: v.string(),
  version: v.string(),
  description: v.string(),
  category: v.string(),
  capabilities: v.array(v.string()),
  estimated_latency: v.picklist(["fast", "medium", "slow"]),
  status: v.string(),
  health: v.picklist(["healthy", "degraded", "unhealthy", "unknown"]),
  circuit: Circuit,
  subscribed: v.boolean(),
});

export const PluginDetail = v.strictObject({
  ...PluginSummary.entries,
  /** Free executions without a subscription; null where you have subscribed, or the plugin cannot be tried. */
  sandbox: v.nullable(v.strictObject({ tries: v.number(), remaining: v.number() })),
  required_scopes: v.array(v.string()),
  required_secret_names: v.array(v.string()),
  egress_hosts: v.array(v.string()),
  dependencies: v.array(v.strictObject({ name: v.string(), version: v.string() })),
  input_schema: v.record(v.string(), v.unknown()),
  config_schema: v.nullable(v.record(v.string(), v.unknown())),
  model: v.string(),
  token_budget: v.number(),
  timeout_seconds: v.number(),
  envelope_version: v.string(),
});

export function pluginSummary(entry: CatalogueEntry, isSubscribed: boolean, circuit: v.InferOutput<typeof Circuit>): v.InferOutput<typeof PluginSummary> {
  const { manifest } = entry;
  return {
    name: entry.name,
    version: entry.version,
    description: manifest.description,
    category: manifest.category,
    capabilities: manifest.capabilities,
    estimated_latency: manifest.estimated_latency,
    status: entry.status,
    health: entry.health.status,
    circuit,
    subscribed: isSubscribed,
  };
}

type Sandbox = v.InferOutput<typeof PluginDetail>["sandbox"];

export function pluginDetail(entry: CatalogueEntry, isSubscribed: boolean, circuit: v.InferOutput<typeof Circuit>, sandbox: Sandbox): v.InferOutput<typeof PluginDetail> {
  const { manifest } = entry;
  return {
    ...pluginSummary(entry, isSubscribed, circuit),
    sandbox,
    required_scopes: manifest.required_scopes,
    required_secret_names: manifest.required_secret_names,
    egress_hosts: manifest.egress_hosts,
    dependencies: manifest.dependencies,
    input_schema: manifest.input_schema,
    config_schema: manifest.config_schema ?? null,
    model: manifest.model,
    token_budget: manifest.token_budget,
    timeout_seconds: manifest.timeout_seconds,
    envelope_version: manifest.envelope_version,
  };
}
