/**
 * Every setting there is, in one table. It is read once into a frozen object; what is missing or malformed stops the start
 * with the name of the variable. The README's table and the environment of each Knative Service come from here.
 */
import * as v from "valibot";
import { KEY_ID, readRingKeys } from "../access/key-ring.ts";

interface Variable {
  schema: v.GenericSchema<string | undefined, unknown>;
  /** Secret values come from a Kubernetes Secret, others from a ConfigMap. */
  secret?: true;
  about: string;
}

const text = v.optional(
  v.pipe(
    v.string(),
    v.trim(),
    v.transform((s) => (s === "" ? undefined : s)),
  ),
);
const url = v.optional(
  v.pipe(
    v.string(),
    v.trim(),
    v.transform((s) => (s === "" ? undefined : s)),
    v.optional(v.pipe(v.string(), v.url())),
  ),
);
const count = (fallback: number, min: number, max: number) =>
  v.pipe(v.optional(v.string(), String(fallback)), v.transform(Number), v.number(), v.integer(), v.minValue(min), v.maxValue(max));
const fraction = v.optional(v.pipe(v.string(), v.transform(Number), v.number(), v.minValue(0), v.maxValue(1)));
const ratio = v.pipe(v.optional(v.string(), "1"), v.transform(Number), v.number(), v.minValue(0), v.maxValue(1));
const choice = <const T extends readonly string[]>(options: T, fallback: T[number]) => v.optional(v.picklist(options), fallback);
const flag = v.pipe(
  v.optional(v.picklist(["true", "false"]), "false"),
  v.transform((s) => s === "true"),
);
const longSecret = v.optional(v.pipe(v.string(), v.minLength(32, "must have at least 32 characters")));
const keyId = v.optional(
  v.pipe(
    v.string(),
    v.transform((s) => s.trim() || "k1"),
    v.regex(KEY_ID, "must be 1 to 32 of a-z, 0-9, _ and -"),
  ),
  "k1",
);
const ringKeys = v.pipe(
  text,
  v.check((s) => s === undefined || readRingKeys(s) !== null, "must be id=key,id=key with keys of at least 32 characters"),
);

const origins = v.pipe(
  v.optional(v.string(), ""),
  v.transform((s) => s.split(",").flatMap((one) => one.trim() || [])),
  v.array(v.pipe(v.string(), v.regex(/^https?:\/\/[^/?#@]+$/, "must be http(s) origins"))),
);

export const VARIABLES = {
  PORT: { schema: count(8080, 0, 65535), about: "Where the function listens; Knative sets it." },
  LOG_LEVEL: { schema: choice(["trace", "debug", "info", "warn", "error", "silent"], "info"), about: "Least severe log line that is written." },
  DATABASE_URL: { schema: url, secret: true, about: "PostgreSQL 16 or later. Add `?prepare=off` behind a pooler that shares sessions." },
  DATABASE_DRIVER: { schema: choice(["pg", "neon"], "pg"), about: "`neon` connects through Neon's WebSocket proxy." },
  DATABASE_POOL: { schema: count(8, 1, 200), about: "Connections per instance." },
  DATABASE_WAIT_MS: { schema: count(3_000, 100, 600_000), about: "How long work waits for a free connection before it is refused." },
  REDIS_URL: { schema: url, secret: true, about: "Redis 7 or later, or Valkey." },
  S3_ENDPOINT: { schema: url, about: "Any S3-compatible endpoint; empty means AWS." },
  S3_BUCKET: { schema: v.optional(v.string(), "aau-artifacts"), about: "The bucket for artifacts." },
  S3_PUBLIC_ENDPOINT: { schema: url, about: "The endpoint in presigned links, where callers reach the store by another name." },
  AWS_REGION: { schema: v.optional(v.string(), "us-east-1"), about: "Region of the bucket." },
  AWS_ACCESS_KEY_ID: { schema: text, secret: true, about: "Credentials of the bucket." },
  AWS_SECRET_ACCESS_KEY: { schema: text, secret: true, about: "Credentials of the bucket." },
  ANTHROPIC_API_KEY: { schema: text, secret: true, about: "Key for the language model; without it the gateway answers offline." },
  ANTHROPIC_BASE_URL: { schema: url, about: "Another server that speaks the Messages API; enough on its own for local models." },
  ANTHROPIC_MODEL: { schema: text, about: "Overrides the model that plugins name, for servers that know other names." },
  OPENAI_API_KEY: { schema: text, secret: true, about: "Key for embeddings; without it routing uses the offline embedding model." },
  OPENAI_BASE_URL: { schema: url, about: "Another server that speaks the embeddings API." },
  CHAIN_THRESHOLD: { schema: fraction, about: "Probability above which a plugin is chosen directly; fitted per embedding model unless set." },
  CONFIDENCE_MIN: { schema: fraction, about: "Probability below which no plugin fits; fitted per embedding model unless set." },
  CAPABILITY_KEY: { schema: longSecret, secret: true, about: "Signs what a plugin may do while it works on a task, and list cursors." },
  SERVICE_TOKEN: { schema: longSecret, secret: true, about: "Opens the internal registry to the platform's own jobs." },
  ADMISSION_KEY: { schema: longSecret, secret: true, about: "The platform countersigns the plugin images that it accepts with a key that is made from this." },
  IMAGE_REGISTRIES: { schema: origins, about: "OCI registries that plugins' images may come from, as `https://host,https://host`; their signatures are read there." },
  UNSIGNED_PLUGINS: { schema: choice(["refuse", "allow"], "refuse"), about: "`allow` takes plugins that nobody signed; for local development." },
  SECRETS_KEY: { schema: longSecret, secret: true, about: "Seals tenants' secrets (pgcrypto)." },
  SECRETS_KEY_ID: { schema: keyId, about: "The name of SECRETS_KEY, kept with each secret; a new key needs a new name." },
  SECRETS_OTHER_KEYS: {
    schema: ringKeys,
    secret: true,
    about: "Keys that open secrets too, as `id=key,id=key`: the next one before it becomes SECRETS_KEY, the last one until `npm run secrets:rotate` is done.",
  },
  AAU_ALLOW_PRIVATE_WEBHOOKS: {
    schema: flag,
    about: "`true` lets webhooks lead to any address and port, by plain http too: for local use, and for receivers inside the same network.",
  },
  FUNCTION_URL: { schema: v.optional(v.string(), "http://{name}.aau.svc.cluster.local"), about: "Address of a function; `{name}` is replaced." },
  FUNCTION_URLS: { schema: text, about: "Addresses that differ from FUNCTION_URL, as `name=url,name=url`." },
  PUBLIC_URL: { schema: v.optional(v.string(), "http://127.0.0.1:8080"), about: "How callers reach the gateway, for links in replies." },
  BILLING_EVENTS_URL: { schema: url, about: "Where a payment system hears of closed invoices, as signed CloudEvents; without it they wait." },
  BILLING_EVENTS_SECRET: { schema: longSecret, secret: true, about: "Signs what is sent to BILLING_EVENTS_URL." },
  UPGRADE_URL: { schema: v.optional(v.string(), "https://app.aau.io/billing/upgrade"), about: "Where a refusal sends a tenant that has not subscribed." },
  TASK_LEASE_MS: { schema: count(30_000, 500, 600_000), about: "How long an executor owns a task without a heartbeat." },
  MAX_CRASHES: { schema: count(3, 1, 20), about: "Executors that may die on one task before it fails." },
  BRIDGE_IN_FLIGHT: { schema: count(256, 1, 50_000), about: "Events that the bridge delivers at a time, per stream." },
  DRAIN_MS: { schema: count(25_000, 0, 600_000), about: "How long a stopping instance lets requests finish." },
  OTEL_EXPORTER_OTLP_ENDPOINT: { schema: url, about: "Base URL of an OpenTelemetry collector (OTLP over HTTP); traces are sent where it is set." },
  OTEL_EXPORTER_OTLP_HEADERS: { schema: text, secret: true, about: "What the collector wants to see, as `name=value,name=value`." },
  OTEL_TRACES_SAMPLER_ARG: { schema: ratio, about: "The share of traces that is sent, from 0 to 1." },
} as const satisfies Record<string, Variable>;

export type VariableName = keyof typeof VARIABLES;
export type Config = { readonly [K in VariableName]: v.InferOutput<(typeof VARIABLES)[K]["schema"]> };

export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Reads the environment; throws ConfigError with every variable that is wrong. */
export function readConfig(env: Record<string, string | undefined>): Config {
  const values: Record<string, unknown> = {};
  const wrong: string[] = [];
  for (const [name, variable] of Object.entries(VARIABLES)) {
    const parsed = v.safeParse(variable.schema, env[name]);
    if (parsed.success) values[name] = parsed.output;
    else wrong.push(`${name}: ${parsed.issues.map((issue) => issue.message.replace(/received .*/i, "").trim()).join("; ")}`);
  }
  if (wrong.length > 0) throw new ConfigError(`The environment is not valid. ${wrong.join(". ")}`);
  return Object.freeze(values) as Config;
}

/** The value of a setting that this process cannot do without. */
export function required<K extends VariableName>(config: Config, name: K): NonNullable<Config[K]> {
  const value = config[name];
  if (value === undefined || value === null) throw new ConfigError(`${name} is not set. ${VARIABLES[name].about}`);
  return value as NonNullable<Config[K]>;
}
