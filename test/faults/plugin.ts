/**
 * The plugin of the fault runs: two model calls, the second one streamed and built on the first, a tool with effects outside, then an artifact.
 * In a plan its answers go on to ticket-processor, as issues.
 */
import { setTimeout as wait } from "node:timers/promises";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { failpoint } from "../../shared/failpoint.ts";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";

const ARTIFACT = "answers.txt";
/** Files what the probe hands on. */
export const FILER = "ticket-processor";
/** What ticket-processor makes of each answer. */
const TICKETS_PER_TASK = 2;

const State = Annotation.Root({ taskId: Annotation<string>(), command: Annotation<string>(), first: Annotation<string>(), second: Annotation<string>() });
type State = typeof State.State;

function textOf(content: readonly { type: string; text?: string }[]): string {
  return content
    .map((block) => (block.type === "text" ? (block.text ?? "") : ""))
    .join("")
    .trim();
}

const askFirst = node(async ({ command }: State, ctx) => {
  const message = await ctx.anthropic.messages.create({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content: `[question 1] ${command}` }] });
  return { first: textOf(message.content) };
});

/** `[recall]` in the command: the conversation's earlier turns stand in the second prompt. */
const recalled = (command: string, turns: readonly { content: string }[]) =>
  command.includes("[recall]") ? ` remembering ${turns.map(({ content }) => content).join(" / ")}` : "";

const askSecond = node(async ({ command, first }: State, ctx) => {
  FAILPOINT: await failpoint("plugin.in_node");
  if (command.includes("[exit]")) process.exit(0);
  const stream = ctx.anthropic.messages.stream({
    model: ctx.model,
    max_tokens: 100,
    messages: [{ role: "user", content: `[question 2] ${command} after ${first}${recalled(command, ctx.input.context.conversation_history)}` }],
  });
  return { second: textOf((await stream.finalMessage()).content) };
});

const markerOf = (command: string) => /\[mark ([\w-]+)\]/.exec(command)?.[1] ?? "";

/** Something outside that cannot be taken back; the tool knows what it has done by the key. */
async function useTool(key: string, command: string, signal: AbortSignal): Promise<void> {
  const url = process.env.TOOL_URL;
  if (!url) return;
  const answer = await fetch(url, { method: "POST", body: JSON.stringify({ key, marker: markerOf(command) }), signal });
  await answer.arrayBuffer();
}

/** `[slow 800]` in the command keeps the task running for so many milliseconds; `[exit]` ends the process between two paid calls. */
const store = node(async ({ taskId, command, first, second }: State, ctx) => {
  const slowMs = Number(/\[slow (\d+)\]/.exec(command)?.[1] ?? 0);
  if (slowMs > 0) await wait(slowMs, undefined, { signal: ctx.signal });
  await useTool(taskId, command, ctx.signal);
  FAILPOINT: await failpoint("plugin.after_tool");
  await ctx.artifacts.put({ name: ARTIFACT, mediaType: "text/plain", content: `${first}\n${second}\n` });
  return {};
});

export default definePlugin({
  name: "fault-probe",
  version: "1.0.0",
  description: "Asks twice and stores the answers, for fault runs.",
  capabilities: ["Ask the model two questions and store both answers."],
  category: "testing",
  estimatedLatency: "medium",
  requiredScopes: ["store:write", "store:read"],
  timeoutSeconds: 40,
  graph: new StateGraph(State)
    .addNode("ask-first", askFirst)
    .addNode("ask-second", askSecond)
    .addNode("store", store)
    .addEdge(START, "ask-first")
    .addEdge("ask-first", "ask-second")
    .addEdge("ask-second", "store")
    .addEdge("store", END),
  start: (input) => ({ taskId: input.task_id, command: input.task_description }),
  finish: ({ command, first, second }: State) => {
    const path = `${markerOf(command)}.md`;
    const issues = Array.from({ length: TICKETS_PER_TASK }, (_, i) => ({ title: `Look at answer ${i + 1} of [mark ${markerOf(command)}]`, path, line: i + 1 }));
    return { status: "success", result: `${first}\n${second}`, data: { issues }, confidence: 1 };
  },
});
