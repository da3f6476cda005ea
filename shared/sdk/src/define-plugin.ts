import type Anthropic from "@anthropic-ai/sdk";
import type { CompiledStateGraph, StateGraph } from "@langchain/langgraph";
import type { ArtifactRef, InputEnvelope, Warning } from "./envelopes.ts";
import type { Manifest } from "./manifest.ts";

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
  /** Speaks to the platform's llm-gateway with this execution's capability token. Retries are the platform's business (`maxRetries: 0`). */
  readonly anthropic: Anthropic;
  /** The manifest's model. */
  readonly model: string;
  /** False when the gateway answers from its offline model: then skip prompts that only a real model can answer. */
  readonly hasModel: boolean;
  /** Aborted on cancel, time-out and shutdown; pass it to everything that waits. */
  readonly signal: AbortSignal;
  readonly artifacts: {
    /** Stores a file of this task (needs `store:write`). The same name twice replaces the first. */
    put(file: { name: string; mediaType: string; content: string | Uint8Array }): Promise<ArtifactRef>;
    /** Reads back a file that this plugin stored for this task (needs `store:read`). */
    get(name: string): Promise<Uint8Array | null>;
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

/** camelCase in code; the manifest that goes over the wire has the same fields in snake_case. */
export interface PluginDefinition<State> {
  name: string;
  version: string;
  description: string;
  capabilities: string[];
  category: string;
  dependencies?: { name: string; version: string }[];
  inputSchema?: Record<string, unknown>;
  envelopeVersion?: "1.0";
  estimatedLatency: "fast" | "medium" | "slow";
  requiredScopes?: string[];
  requiredSecretNames?: string[];
  egressHosts?: string[];
  /** Default `claude-sonnet-4-6`. */
  model?: string;
  temperature?: number;
  maxRetries?: number;
  timeoutSeconds?: number;
  tokenBudget?: number;
  fallback?: string;
  /** A LangGraph graph, compiled or not, whose nodes were made with `node()`. */
  // biome-ignore lint/suspicious/noExplicitAny: LangGraph's graph types carry one parameter per node; the SDK only invokes the graph.
  graph: StateGraph<any, any, any, any> | CompiledStateGraph<any, any, any, any>;
  /** The graph's first state. Throw `CallerMistake` for input that this plugin cannot work on. */
  start(input: InputEnvelope): Partial<State>;
  finish(state: State, input: InputEnvelope): PluginResult;
}

export interface Plugin<State = unknown> {
  readonly kind: "plugin";
  readonly name: string;
  readonly manifest: Manifest;
  readonly definition: PluginDefinition<State>;
}
