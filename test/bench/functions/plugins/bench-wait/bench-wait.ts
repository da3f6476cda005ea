/** Waits two seconds, as a plugin does while a model thinks. */
import { setTimeout as wait } from "node:timers/promises";
import { definePlugin, node } from "@aau/sdk";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });

async function think(state: typeof State.State, ctx: { signal: AbortSignal }) {
  await wait(2_000, undefined, { signal: ctx.signal });
  return { text: state.command };
}

export default definePlugin({
  name: "bench-wait",
  version: "1.0.0",
  description: "Waits two seconds and answers with the command itself.",
  category: "bench",
  capabilities: ["Wait for two seconds and do nothing else."],
  estimatedLatency: "medium",
  requiredScopes: [],
  start: (input): typeof State.State => ({ command: input.task_description, text: "" }),
  finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 1 }),
  graph: new StateGraph(State).addNode("think", node(think)).addEdge(START, "think").addEdge("think", END),
});
