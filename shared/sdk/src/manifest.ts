/** What a plugin says of itself. The platform checks it at registration and stores it as it is. */
import * as v from "valibot";
import { ConfigSchema } from "./config-schema.ts";
import { ENVELOPE_VERSIONS } from "./envelope-versions.ts";

/** Checked before any lookup; ASCII only, so that look-alike letters of other alphabets cannot name a plugin. */
export const PluginName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{2,39}$/, "a plugin's name is 3 to 40 of a-z, 0-9 and -, and begins with a letter"));
export const Semver = v.pipe(v.string(), v.maxLength(64), v.regex(/^\d{1,6}\.\d{1,6}\.\d{1,6}(?:-[0-9a-z.-]{1,32})?$/i, "must be a semantic version such as 1.0.0"));

export const SCOPES = ["context:read", "store:read", "store:write", "plugin:chain", "knowledge:read", "knowledge:write", "tickets:read", "tickets:write"] as const;
export const SecretName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9_]{0,62}$/, "a secret's name is 1 to 63 of a-z, 0-9 and _, and begins with a letter"));
const SecretScope = v.pipe(v.string(), v.regex(/^secrets:[a-z][a-z0-9_]{0,62}$/, "unknown scope"));
export const PluginScope = v.union([v.picklist(SCOPES), SecretScope], "unknown scope");

export const Manifest = v.object({
  name: PluginName,
  version: Semver,
  description: v.pipe(v.string(), v.minLength(10), v.maxLength(500)),
  /** What it can do, one sentence each; the router embeds these. Five good sentences route better than twenty terse ones. */
  capabilities: v.pipe(v.array(v.pipe(v.string(), v.minLength(3), v.maxLength(300))), v.minLength(1), v.maxLength(50)),
  category: v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{1,39}$/)),
  dependencies: v.optional(v.pipe(v.array(v.object({ name: PluginName, version: v.pipe(v.string(), v.maxLength(64)) })), v.maxLength(20)), []),
  /** JSON Schema of what the plugin expects in `attachments` and `plugin_config`; informative. */
  input_schema: v.optional(v.record(v.string(), v.unknown()), {}),
  /** JSON Schema of the tenant's `plugin_config`, from the plugin's `configSchema`. Without it the platform takes any object. */
  config_schema: v.optional(ConfigSchema),
  envelope_version: v.picklist(ENVELOPE_VERSIONS, `this platform speaks the envelopes ${ENVELOPE_VERSIONS.join(" and ")}`),
  estimated_latency: v.picklist(["fast", "medium", "slow"]),
  required_scopes: v.optional(v.pipe(v.array(PluginScope), v.maxLength(30)), []),
  required_secret_names: v.optional(v.pipe(v.array(SecretName), v.maxLength(20)), []),
  /** Hosts outside the platform that the plugin calls; the egress proxy opens these and no others. */
  egress_hosts: v.optional(v.pipe(v.array(v.pipe(v.string(), v.regex(/^[a-z0-9.-]{1,253}$/))), v.maxLength(20)), []),
  model: v.pipe(v.string(), v.maxLength(100)),
  temperature: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(1)), 0),
  max_retries: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(5)), 2),
  timeout_seconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(540)), 120),
  token_budget: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(10_000_000)), 50_000),
  fallback: v.optional(v.nullable(PluginName), null),
});
export type Manifest = v.InferOutput<typeof Manifest>;
