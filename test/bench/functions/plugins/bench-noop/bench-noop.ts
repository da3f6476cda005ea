/** The smallest graph there is: what is left of a task's time is the platform's. */

import { definePlugin, node } from "@aau/sdk";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });

async function answer(state: typeof State.State) {
  return { text: state.command };
}

export default definePlugin({
  name: "bench-noop",
  version: "1.0.0",
  description: "Answers with the command itself, to measure what surrounds it.",
  category: "bench",
  capabilities: ["Review a change for security problems.", "Find vulnerabilities in a pull request.", "Check a diff for mistakes and risks."],
  estimatedLatency: "medium",
  requiredScopes: [],
  start: (input): typeof State.State => ({ command: input.task_description, text: "" }),
  finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 1 }),
  graph: new StateGraph(State).addNode("answer", node(answer)).addEdge(START, "answer").addEdge("answer", END),
});
