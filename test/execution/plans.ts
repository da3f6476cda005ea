/** Tasks with plans of several steps, admitted as admission does it, and plugins whose steps do as they are told. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { sql } from "kysely";
import { newId, publicId } from "../../shared/ids.ts";
import type { InputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import type { PlanStep } from "../../shared/tasks/task-plan.ts";
import type { TestPlatform, TestTenant } from "../support/platform.ts";

const State = Annotation.Root({ input: Annotation<InputEnvelope>(), text: Annotation<string>() });
type Held = typeof State.State;

const base = {
  version: "1.0.0",
  category: "testing",
  estimatedLatency: "medium" as const,
  requiredScopes: ["context:read", "store:write", "store:read"],
  start: (input: InputEnvelope) => ({ input }),
};

/** What every execution of these plugins was given, in order. */
export const executions: { plugin: string; input: InputEnvelope }[] = [];
const seen = (plugin: string) => async (state: Held) => {
  executions.push({ plugin, input: state.input });
  return {};
};

/** Gives what its command says as JSON: `{result?, data?, confidence?, status?}`. */
export const giver = definePlugin({
  ...base,
  name: "giver",
  description: "Gives what it is told to give, for tests.",
  capabilities: ["Give the stated result."],
  graph: new StateGraph(State)
    .addNode("give", node(seen("giver")))
    .addEdge(START, "give")
    .addEdge("give", END),
  finish: (state: Held) => ({ status: "success", result: "given", confidence: 0.9, data: null, ...JSON.parse(state.input.task_description) }),
});

/** Gives back the whole of what it was told, as data. */
export const mirror = definePlugin({
  ...base,
  name: "mirror",
  description: "Shows what it was told, for tests.",
  capabilities: ["Show what a plugin is told."],
  graph: new StateGraph(State)
    .addNode("look", node(seen("mirror")))
    .addEdge(START, "look")
    .addEdge("look", END),
  finish: ({ input }: Held) => ({ status: "success", result: "seen", confidence: 0.7, data: { input } }),
});

/** A plugin that may read nothing of the user and the conversation. */
export const closedMirror = definePlugin({
  ...base,
  name: "closed-mirror",
  description: "Shows what a plugin without scopes is told, for tests.",
  capabilities: ["Show what a plugin without scopes is told."],
  requiredScopes: ["secrets:token"],
  requiredSecretNames: ["token", "other"],
  graph: new StateGraph(State)
    .addNode(
      "look",
      node(async (state: Held, ctx) => {
        executions.push({ plugin: "closed-mirror", input: state.input });
        return { text: ["token", "other"].filter((name) => ctx.secret(name) !== null).join() };
      }),
    )
    .addEdge(START, "look")
    .addEdge("look", END),
  finish: ({ input, text }: Held) => ({ status: "success", result: text, confidence: 0.7, data: { context: input.context } }),
});

/** Two model calls, one after the other, about its command and its attachments; the answers are the result. */
export const thinker = definePlugin({
  ...base,
  name: "thinker",
  description: "Asks the model twice, for tests.",
  capabilities: ["Ask the language model two questions."],
  graph: new StateGraph(State)
    .addNode("see", node(seen("thinker")))
    .addNode("first", node(ask("first")))
    .addNode("second", node(ask("second")))
    .addEdge(START, "see")
    .addEdge("see", "first")
    .addEdge("first", "second")
    .addEdge("second", END),
  finish: (state: Held) => ({ status: "success", result: state.text, confidence: 0.8 }),
});

function ask(which: string) {
  return async (state: Held, ctx: Parameters<Parameters<typeof node>[0]>[1]) => {
    const content = `${which}: ${state.input.task_description} ${state.input.attachments.map((attachment) => attachment.content).join(" ")}`;
    const message = await ctx.anthropic.messages.create({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content }] }, { signal: ctx.signal });
    return { text: [state.text, ...message.content.map((block) => (block.type === "text" ? block.text : ""))].filter(Boolean).join(" ") };
  };
}

export const step = (id: string, plugin: string, rest: Partial<PlanStep> = {}): PlanStep => ({ id, plugin, version: "1.0.0", needs: [], ...rest });
export const give = (value: Record<string, unknown>) => JSON.stringify(value);

export interface PlanOptions {
  command?: string;
  attachments?: unknown[];
  conversationId?: string;
  environment?: "live" | "test";
  deadlineMs?: number;
  maxCostMicroUsd?: number;
  embedding?: { bytes: Buffer; model: string };
}

/** A task as admission leaves it, one execution of every step's plugin reserved, and due to be rung for. */
export async function admitPlan(platform: TestPlatform, tenant: TestTenant, plan: readonly PlanStep[], options: PlanOptions = {}): Promise<string> {
  const { command = "do all of it", attachments = [], conversationId = null, environment = "live", deadlineMs = 600_000, maxCostMicroUsd = null, embedding } = options;
  const id = newId("task");
  await platform.db.platform(async (tx) => {
    for (const { plugin } of plan)
      await sql`INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved)
        VALUES (${tenant.tenantId}, ${plugin}, ${environment}, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 1)
        ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + 1`.execute(tx);
    await sql`INSERT INTO tasks (id, tenant_id, user_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, reserved_period, deadline, next_ring_at,
        max_cost_micro_usd, command_embedding, command_embedding_model, request_id)
      VALUES (${id}, ${tenant.tenantId}, ${tenant.userId}, ${environment}, ${conversationId}, ${plan[0]?.plugin ?? null}, ${JSON.stringify(plan)}, 'queued',
        ${JSON.stringify({ command, attachments })}, 'explicit', date_trunc('month', now() AT TIME ZONE 'UTC')::date, now() + ${deadlineMs} * interval '1 millisecond',
        now() - interval '1 second', ${maxCostMicroUsd}, ${embedding?.bytes ?? null}, ${embedding?.model ?? null}, 'req_test')`.execute(tx);
  });
  return id;
}

/** Rings for what is due, and reads the task when it has ended. */
export async function ended(platform: TestPlatform, tenant: TestTenant, id: string) {
  await platform.runCron("wake");
  const { body } = await tenant.api("GET", `/v1/tasks/${publicId("task", id)}?wait=20`);
  return body;
}

export const usageOf = (platform: TestPlatform, tenant: TestTenant) =>
  platform.db.call<{ plugin_name: string; used: number; reserved: number }>("SELECT plugin_name, used, reserved FROM usage_periods WHERE tenant_id = $1 ORDER BY plugin_name", [
    tenant.tenantId,
  ]);

export const billedSteps = (platform: TestPlatform, id: string) =>
  platform.db.call<{ step: string; plugin_name: string; status: string; billable: boolean; tokens: number }>(
    "SELECT step, plugin_name, status, billable, tokens_used::int AS tokens FROM execution_events WHERE task_id = $1 ORDER BY step",
    [id],
  );
