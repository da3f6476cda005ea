/** The main jobs, once, before the user's eyes: a real diff is reviewed, and then one sentence makes a chain of two plugins: a ticket for each finding. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { createParser } from "eventsource-parser";
import * as v from "valibot";
import { isTerminal } from "../../shared/tasks/task-view.ts";
import { dim, green, red, yellow } from "./terminal.ts";

const EXAMPLE = fileURLToPath(new URL("../../functions/plugins/code-review/examples/change.diff", import.meta.url));
const REVIEW = "Review this change for security problems";
const CHAIN = "Review this change and create a ticket for each issue";
const STREAM_TIMEOUT_MS = 180_000;

const Task = v.object({
  task_id: v.string(),
  status: v.string(),
  plugin: v.nullable(v.string()),
  routing: v.object({ method: v.string(), confidence: v.nullable(v.number()) }),
  steps: v.optional(v.array(v.object({ id: v.string(), plugin: v.string() })), []),
  result: v.optional(v.nullable(v.string())),
  next_steps: v.optional(v.array(v.string()), []),
  artifacts: v.optional(v.array(v.object({ name: v.string(), size_bytes: v.number() })), []),
  error: v.optional(v.nullable(v.object({ code: v.string(), message: v.string() }))),
  execution_meta: v.optional(v.nullable(v.object({ model_used: v.nullable(v.string()), tokens_used: v.number(), cost_estimate_usd: v.string(), latency_seconds: v.number() }))),
});

/** The id of the review, or null when one of the tasks failed. */
export async function runFirstTasks(baseUrl: string, key: string, print: (line: string) => void): Promise<string | null> {
  const review = await runTask(baseUrl, key, print, REVIEW);
  if (review === null) return null;
  print("");
  return (await runTask(baseUrl, key, print, CHAIN)) && review;
}

async function runTask(baseUrl: string, key: string, print: (line: string) => void, command: string): Promise<string | null> {
  const diff = await readFile(EXAMPLE, "utf8");
  const call = async (path: string, init: RequestInit = {}) => {
    const answer = await fetch(`${baseUrl}${path}`, {
      signal: AbortSignal.timeout(STREAM_TIMEOUT_MS),
      ...init,
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    });
    if (!answer.ok) throw new Error(`${init.method ?? "GET"} ${path} answered ${answer.status}: ${await answer.text()}`);
    return answer;
  };

  print(`${dim("$")} POST /v1/tasks  ${dim(`"${command}" + change.diff (${diff.split("\n").length} lines)`)}`);
  const body = JSON.stringify({ command, attachments: [{ name: "change.diff", media_type: "text/x-diff", content: diff }] });
  const submitted = v.parse(Task, await (await call("/v1/tasks", { method: "POST", body })).json());
  const confidence = submitted.routing.confidence === null ? "" : `, confidence ${submitted.routing.confidence.toFixed(2)}`;
  const planned = v.parse(Task, await (await call(`/v1/tasks/${submitted.task_id}`)).json()).steps.map(({ plugin }) => plugin);
  print(`  ${submitted.task_id} → ${planned.length > 1 ? planned.join(" → ") : submitted.plugin} ${dim(`(routed by ${submitted.routing.method}${confidence})`)}`);

  const events = await call(`/v1/tasks/${submitted.task_id}/events`);
  const parser = createParser({
    onEvent({ event, data }) {
      const line = describe(event ?? "", JSON.parse(data), planned.length > 1);
      if (line) print(line);
    },
  });
  const decoder = new TextDecoder();
  for await (const chunk of events.body ?? []) parser.feed(decoder.decode(chunk, { stream: true }));

  const task = v.parse(Task, await (await call(`/v1/tasks/${submitted.task_id}?wait=25`)).json());
  if (!isTerminal(task.status)) throw new Error(`the task is still ${task.status}`);
  const meta = task.execution_meta;
  print("");
  if (task.result) print(lastPart(task.result, task.steps).trimEnd());
  if (task.error) print(red(`${task.error.code}: ${task.error.message}`));
  print("");
  const colour = task.status === "success" ? green : task.status === "partial" ? yellow : red;
  print(
    `${colour(task.status)}  ${dim(`${meta?.latency_seconds ?? 0} s · model ${meta?.model_used ?? "none"} · ${meta?.tokens_used ?? 0} tokens · ${meta?.cost_estimate_usd ?? "0"} USD`)}`,
  );
  for (const step of task.next_steps) print(`${yellow("next")}  ${step}`);
  for (const artifact of task.artifacts) print(`${dim("file")}  ${artifact.name} ${dim(`${artifact.size_bytes} bytes`)}`);
  return task.status === "success" || task.status === "partial" ? task.task_id : null;
}

/** Of a chain, what its last step gave: the parts before it are what the first task has shown. */
function lastPart(result: string, steps: readonly { id: string; plugin: string }[]): string {
  const last = steps.length > 1 ? steps.at(-1) : undefined;
  const heading = last && `## ${last.id} (${last.plugin})\n\n`;
  const at = heading ? result.lastIndexOf(heading) : -1;
  return heading && at >= 0 ? result.slice(at + heading.length) : result;
}

const Progress = v.object({
  step: v.optional(v.string()),
  node: v.optional(v.string()),
  duration_ms: v.optional(v.number()),
  message: v.optional(v.string()),
  status: v.optional(v.string()),
});

function describe(event: string, data: unknown, isChain: boolean): string | null {
  const { step, node, duration_ms, message } = v.parse(Progress, data);
  const where = isChain && step !== undefined ? dim(`${step} `) : "";
  if (event === "node_finished") return `  ${green("✓")} ${where}${node} ${dim(`${Math.round(duration_ms ?? 0)} ms`)}`;
  if (event === "report" || event === "warning") return `    ${dim(message ?? "")}`;
  if (event === "retrying") return `  ${yellow("↻")} ${dim("the plugin did not answer; trying again")}`;
  return null;
}
