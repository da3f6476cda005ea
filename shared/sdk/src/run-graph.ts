/**
 * Runs a compiled graph to its last state, without two costs of `graph.invoke` that made up half of a small graph's time: a tracer's
 * run tree for every step, also where nobody traces, and three web streams between the graph and its caller.
 */
import { AsyncLocalStorageProviderSingleton as ambient } from "@langchain/core/singletons";

export interface GraphOptions {
  signal: AbortSignal;
  recursionLimit: number;
  configurable: Record<string, unknown>;
}

export interface CompiledGraph {
  outputChannels: unknown;
  /** What `stream` and `invoke` are made of; declared by every Runnable of LangChain. */
  _streamIterator(input: unknown, options: object): AsyncGenerator<unknown>;
}

/** The keys under which LangChain keeps a step's config and a caller's context variables in the ambient store. */
const CHILD_CONFIG = Symbol.for("lc:child_config");
const CONTEXT_VARIABLES = Symbol.for("lc:context_variables");
let isLean = false;

/** A step without callbacks has nobody who reads its run tree, so its config is all that the ambient store holds for it. With callbacks, as with a tracer in the environment, nothing changes. */
function dropUnreadRunTrees(): void {
  if (isLean) return;
  isLean = true;
  const withRunTree = ambient.runWithConfig.bind(ambient);
  ambient.runWithConfig = (config, callback, avoidCreatingRootRunTree) => {
    if (config?.callbacks !== undefined) return withRunTree(config, callback, avoidCreatingRootRunTree);
    const storage = ambient.getInstance();
    const variables = storage.getStore()?.[CONTEXT_VARIABLES];
    return storage.run({ extra: { [CHILD_CONFIG]: config }, ...(variables !== undefined && { [CONTEXT_VARIABLES]: variables }) }, callback);
  };
}

/** The graph's last state; `onState` hears of each that finished nodes come to. Rejects at once when the signal aborts, whatever a node still does. */
export async function runGraph(graph: CompiledGraph, input: unknown, options: GraphOptions, onState: (state: unknown) => void): Promise<unknown> {
  dropUnreadRunTrees();
  const { signal } = options;
  signal.throwIfAborted();
  let giveUp = () => {};
  const aborted = new Promise<never>((_, reject) => {
    giveUp = () => reject(signal.reason);
  });
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    return await Promise.race([lastState(graph, input, options, onState), aborted]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

async function lastState(graph: CompiledGraph, input: unknown, options: GraphOptions, onState: (state: unknown) => void): Promise<unknown> {
  let last: unknown;
  for await (const state of graph._streamIterator(input, { ...options, outputKeys: graph.outputChannels, streamMode: "values" })) {
    last = state;
    onState(state);
  }
  return last;
}
