/** Small plugins for tests; each does one thing that a test needs to see. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import type { InputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });

const base = {
  version: "1.0.0",
  category: "testing",
  estimatedLatency: "medium" as const,
  requiredScopes: ["context:read", "store:write", "store:read"],
  start: (input: InputEnvelope) => ({ command: input.task_description }),
  finish: (state: typeof State.State) => ({ status: "success" as const, result: state.text, confidence: 0.9 }),
};

/** Answers with the command, and does nothing else. */
export const echo = definePlugin({
  ...base,
  name: "echo",
  description: "Says again what it was told, for tests.",
  capabilities: ["Echo the given words back.", "Repeat a sentence word for word."],
  graph: new StateGraph(State)
    .addNode(
      "repeat",
      node(async (state: typeof State.State) => ({ text: state.command })),
    )
    .addEdge(START, "repeat")
    .addEdge("repeat", END),
});

/** One model call, whose text is the result. */
export const asker = definePlugin({
  ...base,
  name: "asker",
  description: "Asks the model one question, for tests.",
  capabilities: ["Ask the language model a question and pass on its answer."],
  graph: new StateGraph(State)
    .addNode(
      "ask",
      node(async (state: typeof State.State, ctx) => {
        const message = await ctx.anthropic.messages.create({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content: state.command }] }, { signal: ctx.signal });
        return { text: message.content.map((block) => (block.type === "text" ? block.text : "")).join("") };
      }),
    )
    .addEdge(START, "ask")
    .addEdge("ask", END),
});
