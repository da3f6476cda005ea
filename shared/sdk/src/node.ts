import type { NodeContext } from "./define-plugin.ts";
import { Execution } from "./execution.ts";

/** LangGraph copies plain entries of `configurable` into its metadata and traces, except those that begin with two underscores. */
export const EXECUTION_KEY = "__aau_execution";

/** The part of LangGraph's config that the wrapper reads. */
interface NodeConfig {
  configurable?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  signal?: AbortSignal;
}

/**
 * Turns `(state, ctx) => patch` into a LangGraph node, to be given to `addNode`.
 *
 * Before and after the function runs, the SDK stops if the task was cancelled, holds the token budget against what was
 * used, and tells the platform which node is at work. The state's type is LangGraph's own: a node that is reached by
 * `Send` declares the type of what was sent.
 *
 * @throws Error when the graph runs outside `serve()` and the harness, where there is no execution.
 */
export function node<State, Patch>(run: (state: State, ctx: NodeContext) => Patch | Promise<Patch>): (state: State, config: NodeConfig) => Promise<Patch> {
  return async (state, config) => {
    const execution = config.configurable?.[EXECUTION_KEY];
    const name = config.metadata?.langgraph_node;
    if (!(execution instanceof Execution) || typeof name !== "string") {
      throw new Error("a node made with node() runs only inside an execution: start the graph through serve() or PluginHarness");
    }
    return execution.runNode(name, config.signal ?? execution.signal, (ctx) => run(state, ctx));
  };
}
