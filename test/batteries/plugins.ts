/** Plugins that the batteries and the behaviour tests need beside the common ones. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import * as v from "valibot";
import type { InputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
type Held = typeof State.State;

const base = {
  version: "1.0.0",
  category: "testing",
  estimatedLatency: "medium" as const,
  requiredScopes: ["context:read", "store:write", "store:read"],
  start: (input: InputEnvelope) => ({ command: input.task_description }),
  finish: (state: Held) => ({ status: "success" as const, result: state.text ?? "", confidence: 0.9 }),
};

/** Stores the command as a file. */
export const filer = definePlugin({
  ...base,
  name: "filer",
  description: "Stores what it was told as a file, for tests.",
  capabilities: ["Store the given words in a file."],
  graph: new StateGraph(State)
    .addNode(
      "store",
      node(async (state: Held, ctx) => {
        await ctx.artifacts.put({ name: "report.txt", mediaType: "text/plain", content: state.command });
        return { text: "stored" };
      }),
    )
    .addEdge(START, "store")
    .addEdge("store", END),
});

/** Tells how its secret prints, and how long it is. */
export const keeper = definePlugin({
  ...base,
  name: "keeper",
  description: "Holds a secret and a setting, for tests.",
  capabilities: ["Say how long the secret is."],
  requiredScopes: ["secrets:token"],
  requiredSecretNames: ["token", "not_in_scope"],
  configSchema: v.strictObject({ style: v.optional(v.picklist(["short", "long"]), "short"), names: v.optional(v.array(v.pipe(v.string(), v.regex(/^(a+)+$/)))) }),
  graph: new StateGraph(State)
    .addNode(
      "tell",
      node(async (_: Held, ctx) => {
        const [token, other] = [ctx.secret("token"), ctx.secret("not_in_scope")];
        return { text: `${token} ${JSON.stringify({ token })} ${token?.reveal().length ?? 0} ${other} ${ctx.config.style}` };
      }),
    )
    .addEdge(START, "tell")
    .addEdge("tell", END),
});

/** Waits until its signal aborts, and for nothing else; `begun` is told when a node waits. */
export const waiter = definePlugin({
  ...base,
  name: "waiter",
  description: "Waits until it is told to stop, for tests.",
  capabilities: ["Wait until somebody says stop."],
  graph: new StateGraph(State)
    .addNode(
      "first",
      node(async (_: Held, ctx) => {
        ctx.report("waiting");
        await new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason), { once: true }));
        return { text: "never" };
      }),
    )
    .addNode(
      "second",
      node(async () => ({ text: "never either" })),
    )
    .addEdge(START, "first")
    .addEdge("first", "second")
    .addEdge("second", END),
});

/** Fails with an error of its own. */
export const failer = definePlugin({
  ...base,
  name: "failer",
  description: "Fails at whatever it is told, for tests.",
  capabilities: ["Fail at the given task."],
  maxRetries: 0,
  graph: new StateGraph(State)
    .addNode(
      "fail",
      node(async (): Promise<{ text: string }> => {
        throw new Error("this plugin always fails");
      }),
    )
    .addEdge(START, "fail")
    .addEdge("fail", END),
});

/** Six nodes one after another, each with a report. */
export const walker = definePlugin({
  ...base,
  name: "walker",
  description: "Walks through six nodes and says so, for tests.",
  capabilities: ["Walk through six rooms one after another."],
  graph: ["one", "two", "three", "four", "five", "six"]
    .reduce<StateGraph<typeof State.spec, Held, Partial<Held>, string>>(
      (graph, name, at, names) =>
        graph
          .addNode(
            name,
            node(async (_: Held, ctx) => {
              ctx.report(`in ${name}`);
              return { text: name };
            }),
          )
          .addEdge(names[at - 1] ?? START, name),
      new StateGraph(State),
    )
    .addEdge("six", END),
});
