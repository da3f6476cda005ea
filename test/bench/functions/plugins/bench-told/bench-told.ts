/** As bench-noop, and told all that a plugin can be told: what is measured is the telling. */

import { definePlugin, node } from "@aau/sdk";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });

async function answer(state: typeof State.State) {
  return { text: state.command };
}

export default definePlugin({
  name: "bench-told",
  version: "1.0.0",
  description: "Answers with the command itself, after it was told all there is to tell.",
  category: "bench",
  capabilities: ["Say how many days of vacation there are."],
  estimatedLatency: "medium",
  requiredScopes: ["context:read", "knowledge:read", "secrets:first", "secrets:second"],
  requiredSecretNames: ["first", "second"],
  start: (input): typeof State.State => ({ command: input.task_description, text: "" }),
  finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 1 }),
  graph: new StateGraph(State).addNode("answer", node(answer)).addEdge(START, "answer").addEdge("answer", END),
});
