/**
 * Five model calls and more, whole, streamed and in parallel, two of them with the same words; then a third node that can be held open
 * until its process is killed. Run as a program it serves itself, as a pod does.
 */
import { existsSync, writeFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import { definePlugin, type NodeContext, node } from "../../shared/sdk/src/index.ts";
import { serve } from "../../shared/sdk/src/serve.ts";

const State = Annotation.Root({
  command: Annotation<string>(),
  answers: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
});
type Held = typeof State.State;

type Message = Awaited<ReturnType<NodeContext["anthropic"]["messages"]["create"]>>;
const textOf = (message: Extract<Message, { content: unknown }>) => message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
const body = (ctx: NodeContext, content: string) => ({ model: ctx.model, max_tokens: 100, messages: [{ role: "user" as const, content }] });
const whole = async (ctx: NodeContext, content: string) => textOf(await ctx.anthropic.messages.create(body(ctx, content)));
const streamed = async (ctx: NodeContext, content: string) => textOf(await ctx.anthropic.messages.stream(body(ctx, content)).finalMessage());

/** Says that it waits, and waits while the file is there. */
async function hold(ctx: NodeContext): Promise<void> {
  const file = process.env.HOLD_FILE;
  if (!file || !existsSync(file)) return;
  writeFileSync(`${file}.held`, "");
  while (existsSync(file)) await wait(20, undefined, { signal: ctx.signal });
}

const first = node(async ({ command }: Held, ctx) => ({ answers: [await streamed(ctx, `first ${command}`)] }));
const branch = node(async ({ how, about }: { how: "whole" | "streamed"; about: string }, ctx) => ({
  answers: [await (how === "whole" ? whole : streamed)(ctx, `branch ${about}`)],
}));
const third = node(async ({ command }: Held, ctx) => {
  const answer = await whole(ctx, `third ${command}`);
  await hold(ctx);
  return { answers: [answer] };
});
const last = node(async ({ answers }: Held, ctx) => ({ answers: [await streamed(ctx, `last of ${[...answers].sort().join(", ")}`)] }));

const BRANCHES = [
  { how: "whole", about: "twice" },
  { how: "whole", about: "twice" },
  { how: "streamed", about: "once" },
] as const;
/** Model calls of one execution. */
export const CALLS = 3 + BRANCHES.length;

export const payer = definePlugin({
  name: "payer",
  version: "1.0.0",
  description: "Asks the model in every way there is, for tests.",
  capabilities: ["Ask the model in every way there is."],
  category: "testing",
  estimatedLatency: "medium",
  timeoutSeconds: 60,
  graph: new StateGraph(State)
    .addNode("first", first)
    .addNode("branch", branch)
    .addNode("third", third)
    .addNode("last", last)
    .addEdge(START, "first")
    .addConditionalEdges("first", () => BRANCHES.map((given) => new Send("branch", given)))
    .addEdge("branch", "third")
    .addEdge("third", "last")
    .addEdge("last", END),
  start: (input) => ({ command: input.task_description }),
  finish: ({ answers }: Held) => ({ status: "success", result: [...answers].sort().join("\n"), confidence: 1 }),
});

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await serve(payer);
