import type Anthropic from "@anthropic-ai/sdk";
import type { CompiledStateGraph, StateGraph } from "@langchain/langgraph";
import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { CURRENT_ENVELOPE_VERSION, type EnvelopeVersion } from "./envelope-versions.ts";
import type { ArtifactRef, InputEnvelope, Warning } from "./envelopes.ts";
import type { GuardedFetch } from "./guarded-fetch.ts";
import type { HealthStatus } from "./health.ts";
import { Manifest } from "./manifest.ts";
import type { ChangedTicket, CreatedTickets, NewTicket, TicketChange, TicketDetail, TicketFilter, TicketList } from "./tickets.ts";

/**
 * Everything a node may touch. It arrives with each execution and dies with it: a plugin keeps nothing on the module, so
 * two tenants that run at the same time cannot see each other.
 */
export interface NodeContext {
  /** The whole input, already validated. */
  readonly input: InputEnvelope;
  /** The tenant's settings for this plugin: `input.context.plugin_config`, parsed by the plugin's `configSchema` if it has one. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Reads a declared secret; `null` when the tenant has not set it. Prints and serialises as `[secret]` until `.reveal()` is called. */
  secret(name: string): Secret | null;
  /**
   * The organisation's passages that bear on this task (`input.context.org_knowledge_chunks`) as quoted data with their sources, for the user's turn
   * of a prompt; null when there are none. Never put it into the system prompt: a document must not gain authority.
   */
  knowledgePrompt(): string | null;
  /** Speaks to the platform's llm-gateway with this execution's capability token. Retries are the platform's business (`maxRetries: 0`). */
  readonly anthropic: Anthropic;
  /** The manifest's model. */
  readonly model: string;
  /** False when the gateway answers from its offline model: then skip prompts that only a real model can answer. */
  readonly hasModel: boolean;
  /** Aborted on cancel, time-out and shutdown; pass it to everything that waits. */
  readonly signal: AbortSignal;
  /**
   * Calls an address that a caller or a tenant named: by https, never one inside of the platform's network, whatever a name resolves to. Does not
   * follow redirects. Throws `EgressRefused` for what may not be called.
   */
  readonly fetch: GuardedFetch;
  readonly artifacts: {
    /** Stores a file of this task (needs `store:write`). The same name twice replaces the first. */
    put(file: { name: string; mediaType: string; content: string | Uint8Array }): Promise<ArtifactRef>;
    /** Reads back a file that this plugin stored for this task (needs `store:read`). */
    get(name: string): Promise<Uint8Array | null>;
  };
  /** The tenant's tickets in the platform's own tracker. An answer of `null` means that there is no such ticket. */
  readonly tickets: {
    /** Files up to 200 tickets, all or none; an issue that has a ticket gets no second one (needs `tickets:write`). */
    create(tickets: readonly NewTicket[]): Promise<CreatedTickets>;
    /** At most 500, without their descriptions (needs `tickets:read`). */
    list(filter?: TicketFilter): Promise<TicketList>;
    /** With description and history (needs `tickets:read`). */
    get(id: string): Promise<TicketDetail | null>;
    /** Asking for what is so already changes nothing (needs `tickets:write`). */
    change(id: string, change: TicketChange): Promise<ChangedTicket | null>;
  };
  /** Tells the caller what goes on inside a long node; at most 500 characters; never throws. */
  report(message: string): void;
  warn(warning: Warning): void;
  readonly budget: { readonly limit: number; readonly used: number; readonly exceeded: boolean };
}

export interface Secret {
  reveal(): string;
  toString(): "[secret]";
  toJSON(): "[secret]";
}

/** What `finish` returns; the SDK adds ids, artifacts and the meter. */
export interface PluginResult {
  status: "success" | "partial";
  result: string;
  data?: Record<string, unknown> | null;
  /** 0 to 1. */
  confidence: number;
  nextSteps?: string[];
}

// biome-ignore lint/suspicious/noExplicitAny: LangGraph's graph types carry one parameter per node; the SDK only invokes the graph.
export type PluginGraph<State> = StateGraph<any, State, any, any, any, any, any, any> | CompiledStateGraph<State, any, any, any, any, any, any>;

/** camelCase in code; the manifest that goes over the wire has the same fields in snake_case. */
export interface PluginDefinition<State> {
  name: string;
  version: string;
  description: string;
  capabilities: readonly string[];
  category: string;
  dependencies?: readonly { name: string; version: string }[];
  inputSchema?: Record<string, unknown>;
  /** What travels between the platform and this plugin; the current version unless said. `start`, `finish` and `ctx.input` are the same in all. */
  envelopeVersion?: EnvelopeVersion;
  estimatedLatency: "fast" | "medium" | "slow";
  requiredScopes?: readonly string[];
  requiredSecretNames?: readonly string[];
  egressHosts?: readonly string[];
  /** Default `claude-sonnet-4-6`. */
  model?: string;
  temperature?: number;
  maxRetries?: number;
  timeoutSeconds?: number;
  tokenBudget?: number;
  fallback?: string;
  /**
   * Reads `plugin_config` before the graph starts; a configuration that it refuses is the caller's mistake. As `config_schema` it is
   * part of the manifest, so that the platform refuses such a configuration when a tenant sets it.
   */
  configSchema?: v.GenericSchema<unknown, Record<string, unknown>>;
  /** What a model's refusal does: `fail` (default) ends the task with CONTENT_POLICY_VIOLATION at the node's end; `continue` adds a warning. */
  onRefusal?: "fail" | "continue";
  /** Says how the things that this plugin depends on are; asked by `GET /health`, at most 5 s. Without it, a plugin that answers is healthy. */
  health?(): HealthStatus | Promise<HealthStatus>;
  /** A LangGraph graph, compiled or not, whose nodes were made with `node()`. */
  graph: PluginGraph<State>;
  /** The graph's first state. Throw `CallerMistake` for input that this plugin cannot work on. */
  start(input: InputEnvelope): Partial<State>;
  finish(state: State, input: InputEnvelope): PluginResult;
  /**
   * What can be given when the task has reached the most that it may spend: the state is that of the last finished nodes. The result
   * becomes `partial`. Without it, or when it returns null, the task fails with TOKEN_BUDGET_EXCEEDED and keeps its artifacts.
   */
  finishEarly?(state: State, input: InputEnvelope): Omit<PluginResult, "status"> | null;
}

/** Whoever runs a plugin knows nothing of its state, hence the default. */
// biome-ignore lint/suspicious/noExplicitAny: LangGraph's graphs are invariant in their state, so no other type stands for all plugins.
export interface Plugin<State = any> {
  readonly kind: "plugin";
  readonly name: string;
  readonly manifest: Manifest;
  readonly definition: PluginDefinition<State>;
}

/** A manifest field and the property of the definition that it comes from. */
const PROPERTIES = {
  name: "name",
  version: "version",
  description: "description",
  capabilities: "capabilities",
  category: "category",
  dependencies: "dependencies",
  input_schema: "inputSchema",
  config_schema: "configSchema",
  envelope_version: "envelopeVersion",
  estimated_latency: "estimatedLatency",
  required_scopes: "requiredScopes",
  required_secret_names: "requiredSecretNames",
  egress_hosts: "egressHosts",
  model: "model",
  temperature: "temperature",
  max_retries: "maxRetries",
  timeout_seconds: "timeoutSeconds",
  token_budget: "tokenBudget",
  fallback: "fallback",
} as const satisfies Record<keyof Manifest, keyof PluginDefinition<unknown>>;

const DEFAULTS = { envelope_version: CURRENT_ENVELOPE_VERSION, model: "claude-sonnet-4-6" };

function isFieldName(key: unknown): key is keyof Manifest {
  return typeof key === "string" && key in PROPERTIES;
}

/** What the platform checks before it stores a configuration. What JSON Schema cannot say is left to the execution, which reads the schema itself. */
function describeConfig(schema: v.GenericSchema<unknown, Record<string, unknown>>): Record<string, unknown> {
  const { $schema: _, ...described } = toJsonSchema(schema, { typeMode: "input", errorMode: "ignore" });
  return described;
}

/**
 * Checks a plugin's description of itself and builds its manifest. It starts nothing: the graph is compiled when the first
 * task comes.
 *
 * @throws TypeError that names the property which is wrong, as the developer wrote it.
 */
export function definePlugin<State>(definition: PluginDefinition<State>): Plugin<State> {
  const config_schema = definition.configSchema && describeConfig(definition.configSchema);
  const stated = Object.entries(PROPERTIES).map(([field, property]) => [field, field === "config_schema" ? config_schema : definition[property]] as const);
  const manifest = v.safeParse(Manifest, { ...DEFAULTS, ...Object.fromEntries(stated.filter(([, value]) => value !== undefined)) });
  if (!manifest.success) {
    const [issue] = manifest.issues;
    const [first, ...rest] = (issue.path ?? []).map(({ key }) => key);
    const property = isFieldName(first) ? PROPERTIES[first] : String(first);
    const where = rest.reduce<string>((path, key) => (typeof key === "number" ? `${path}[${key}]` : `${path}.${String(key)}`), property);
    throw new TypeError(`definePlugin: ${where}: ${issue.message}`);
  }
  for (const [property, value] of [
    ["start", definition.start],
    ["finish", definition.finish],
  ] as const) {
    if (typeof value !== "function") throw new TypeError(`definePlugin: ${property}: must be a function`);
  }
  if (typeof definition.graph !== "object" || definition.graph === null) throw new TypeError("definePlugin: graph: must be a LangGraph StateGraph");
  return { kind: "plugin", name: manifest.output.name, manifest: manifest.output, definition };
}
