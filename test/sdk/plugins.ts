/** Small plugins that the tests of the SDK run. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { definePlugin, type NodeContext, node, type PluginDefinition, type PluginResult } from "../../shared/sdk/src/index.ts";

const State = Annotation.Root({ task: Annotation<string>, answer: Annotation<string> });
type State = typeof State.State;

export const MANIFEST = {
  name: "under-test",
  version: "1.0.0",
  description: "A plugin that a test makes up.",
  capabilities: ["be tested"],
  category: "testing",
  estimatedLatency: "fast",
} as const;

export const succeed = (result: string): PluginResult => ({ status: "success", result, confidence: 0.9 });

/** A graph of one node, `work`, whose returned text is the result. */
export function pluginOf(work: (ctx: NodeContext, task: string) => string | Promise<string>, more: Partial<PluginDefinition<State>> = {}) {
  return definePlugin({
    ...MANIFEST,
    graph: new StateGraph(State)
      .addNode(
        "work",
        node(async (state: State, ctx) => ({ answer: await work(ctx, state.task) })),
      )
      .addEdge(START, "work")
      .addEdge("work", END),
    start: (input) => ({ task: input.task_description }),
    finish: (state) => succeed(state.answer),
    ...more,
  });
}

/** Asks the model once and returns its text. */
export async function ask(ctx: NodeContext, text: string): Promise<string> {
  const message = await ctx.anthropic.messages.create({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content: text }] });
  return message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
}

export const USAGE = { input_tokens: 10, output_tokens: 20, cache_creation_input_tokens: 300, cache_read_input_tokens: 4000 };
