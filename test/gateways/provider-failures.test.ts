/** What a provider can do, and how a task ends second: through the gateway, the SDK and the executor. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { forgetCircuits } from "../support/circuits.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import {
  type Act,
  answer,
  blocks,
  endedEarly,
  failure,
  hang,
  overloadedInStream,
  resetMidStream,
  type ScriptedProvider,
  startScriptedProvider,
  truncatedJson,
} from "../support/scripted-provider.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
type Held = typeof State.State;

/** Asks once, whole or streamed as the command says. */
const asking = definePlugin({
  name: "asking",
  version: "1.0.0",
  description: "Asks the model once, whole or streamed, for tests.",
  capabilities: ["Ask the model once."],
  category: "testing",
  estimatedLatency: "medium",
  timeoutSeconds: 2,
  maxRetries: 1,
  graph: new StateGraph(State)
    .addNode(
      "ask",
      node(async ({ command }: Held, ctx) => {
        const body = { model: ctx.model, max_tokens: 100, messages: [{ role: "user" as const, content: command }] };
        const message = command.startsWith("streamed") ? await ctx.anthropic.messages.stream(body).finalMessage() : await ctx.anthropic.messages.create(body);
        return { text: message.content.map((block) => (block.type === "text" ? block.text : "")).join("") };
      }),
    )
    .addEdge(START, "ask")
    .addEdge("ask", END),
  start: (input) => ({ command: input.task_description }),
  finish: ({ text }: Held) => ({ status: "success", result: text, confidence: 1 }),
});

let provider: ScriptedProvider;
let platform: TestPlatform;
beforeAll(async () => {
  provider = await startScriptedProvider(() => answer("unused"));
  platform = await startTestPlatform({ plugins: [asking], env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted" } });
});
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});
beforeEach(() => forgetCircuits(platform.redis.url));

interface Ending {
  status: string;
  result?: string;
  error?: { code: string; cause: string };
  warnings?: string[];
}
const fine: Ending = { status: "success", result: "here again" };
const away: Ending = { status: "failed", error: { code: "PLUGIN_UNAVAILABLE", cause: "upstream" } };

interface Case {
  what: string;
  first: () => Act;
  /** Of the second call; `here again` unless said. Null: there must be none. */
  second?: (() => Act) | null;
  ending: Ending;
  calls: number;
  billable: boolean;
  only?: "whole" | "streamed";
  /** Milliseconds that lie between the two calls at least. */
  apartMs?: number;
  /** The caller allows no longer. */
  deadlineMs?: number;
}

const CASES: Case[] = [
  { what: "429 with Retry-After", first: () => failure(429, { retryAfterSec: 1 }), ending: fine, calls: 2, billable: true, apartMs: 1_000 },
  {
    what: "429 with a Retry-After behind the deadline",
    first: () => failure(429, { retryAfterSec: 600 }),
    second: null,
    ending: away,
    calls: 1,
    billable: false,
    deadlineMs: 20_000,
  },
  { what: "500", first: () => failure(500), ending: fine, calls: 2, billable: true },
  { what: "529", first: () => failure(529), ending: fine, calls: 2, billable: true },
  { what: "529 again and again", first: () => failure(529), second: () => failure(529, { retryAfterSec: 60 }), ending: away, calls: 2, billable: false, deadlineMs: 20_000 },
  { what: "401, which is our key's fault", first: () => failure(401), ending: fine, calls: 2, billable: true },
  { what: "a connection that is reset", first: () => resetMidStream(), ending: fine, calls: 2, billable: true },
  { what: "overloaded_error after 200", first: () => overloadedInStream(), ending: fine, calls: 2, billable: true, only: "streamed" },
  { what: "a stream that ends early", first: () => endedEarly(), ending: fine, calls: 2, billable: true, only: "streamed" },
  { what: "truncated JSON", first: truncatedJson, ending: fine, calls: 2, billable: true, only: "whole" },
  { what: "no answer, once", first: hang, ending: fine, calls: 2, billable: true },
  { what: "no answer, ever", first: hang, second: hang, ending: { status: "failed", error: { code: "PLUGIN_TIMEOUT", cause: "plugin" } }, calls: 2, billable: false },
  {
    what: "an answer cut off at max_tokens",
    first: () => answer("half of an", { stopReason: "max_tokens" }),
    second: null,
    ending: { status: "success", result: "half of an", warnings: ["MODEL_ANSWER_CUT_OFF"] },
    calls: 1,
    billable: true,
  },
  {
    what: "a refusal",
    first: () => blocks([], { stopReason: "refusal" }),
    second: null,
    ending: { status: "failed", error: { code: "CONTENT_POLICY_VIOLATION", cause: "caller" } },
    calls: 1,
    billable: false,
  },
  { what: "empty content", first: () => blocks([]), second: null, ending: { status: "success", result: "" }, calls: 1, billable: true },
  { what: "no usage", first: () => answer("uncounted", { usage: null }), second: null, ending: { status: "success", result: "uncounted" }, calls: 1, billable: true },
  {
    what: "more usage than was asked for",
    first: () => answer("dear", { usage: { input_tokens: 5_000_000, output_tokens: 1_000_000 } }),
    second: null,
    ending: { status: "success", result: "dear", warnings: ["TOKEN_BUDGET_EXCEEDED"] },
    calls: 1,
    billable: true,
  },
  {
    what: "a prompt that is too long",
    first: () => failure(400, { message: "prompt is too long: 210000 tokens > 200000 maximum" }),
    second: null,
    ending: { status: "failed", error: { code: "CONTEXT_WINDOW_OVERFLOW", cause: "caller" } },
    calls: 1,
    billable: false,
  },
  {
    what: "a request that it does not understand",
    first: () => failure(400, { message: "max_tokens: required" }),
    second: null,
    ending: { status: "failed", error: { code: "INTERNAL", cause: "plugin" } },
    calls: 1,
    billable: false,
  },
];

describe.each(["whole", "streamed"] as const)("a task whose provider answers (%s) with", (form) => {
  it.each(CASES.filter(({ only }) => only === undefined || only === form))("$what ends as it should", async ({ first, second, ending, calls, billable, apartMs, deadlineMs }) => {
    const before = provider.ledger.length;
    const startedAt: number[] = [];
    provider.use(({ call }) => {
      startedAt.push(Date.now());
      if (call === before + 1) return first();
      return second ? second() : answer("here again");
    });
    const tenant = await platform.tenant();
    const { body } = await tenant.api(
      "POST",
      "/v1/tasks",
      { command: `${form} question`, plugin: "asking", ...(deadlineMs && { deadline: new Date(Date.now() + deadlineMs).toISOString() }) },
      { prefer: "wait=25" },
    );
    expect(body).toMatchObject({ status: ending.status, result: ending.status === "failed" ? "" : ending.result, error: ending.error ?? null });
    expect(body.warnings.map(({ code }: { code: string }) => code)).toEqual(ending.warnings ?? []);
    expect(provider.ledger.length - before).toBe(calls);
    if (apartMs) expect((startedAt[1] ?? 0) - (startedAt[0] ?? 0)).toBeGreaterThanOrEqual(apartMs);
    const events = await platform.db.call<{ billable: boolean }>("SELECT billable FROM execution_events WHERE tenant_id = $1", [tenant.tenantId]);
    expect(events).toEqual([{ billable }]);
    const open = await platform.db.call("SELECT id FROM llm_calls WHERE tenant_id = $1 AND state = 'started'", [tenant.tenantId]);
    expect(open).toEqual([]);
  });
});

describe("usage that is not what it should be", () => {
  const usageOf = async (act: Act) => {
    provider.use(() => act);
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "whole question", plugin: "asking" }, { prefer: "wait=25" });
    const [call] = await platform.db.call<{ usage: Record<string, unknown>; output_tokens: number }>("SELECT usage, output_tokens FROM llm_calls WHERE tenant_id = $1", [
      tenant.tenantId,
    ]);
    return { body, call };
  };

  it("is estimated, and says so, where the provider counted nothing", async () => {
    const { call } = await usageOf(answer("uncounted", { usage: null }));
    expect(call?.usage).toMatchObject({ estimated: true });
    expect(call?.output_tokens).toBeGreaterThan(0);
  });

  it("is kept and paid as the provider counted it, also above what was asked", async () => {
    const { call, body } = await usageOf(answer("dear", { usage: { input_tokens: 5_000_000, output_tokens: 1_000_000 } }));
    expect(call).toMatchObject({ output_tokens: 1_000_000, usage: { input_tokens: 5_000_000, output_tokens: 1_000_000 } });
    expect(body.execution_meta).toMatchObject({ tokens_used: 6_000_000, cost_estimate_usd: "30.000000", budget_exceeded: true });
  });
});

describe("a task that reaches max_cost_usd", () => {
  it("is stopped before the call that would pass it, which the provider never sees", async () => {
    const before = provider.ledger.length;
    provider.use(() => answer("never"));
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "whole question", plugin: "asking", max_cost_usd: "0.0001" }, { prefer: "wait=25" });
    expect(body).toMatchObject({
      status: "failed",
      error: { code: "TOKEN_BUDGET_EXCEEDED", cause: "caller", message: expect.stringContaining("the most that it may spend") },
      execution_meta: { cost_estimate_usd: "0.000000" },
    });
    expect(provider.ledger.length).toBe(before);
  });
});

describe("a provider that refuses every connection", () => {
  it("is upstream's fault, and the task waits in the queue until its deadline", async () => {
    await provider.stop();
    const tenant = await platform.tenant();
    const { body } = await tenant.api(
      "POST",
      "/v1/tasks",
      { command: "whole question", plugin: "asking", deadline: new Date(Date.now() + 8_000).toISOString() },
      { prefer: "wait=25" },
    );
    expect(body.status).toBe("failed");
    expect(["PLUGIN_UNAVAILABLE", "PLUGIN_TIMEOUT"]).toContain(body.error.code);
    expect(body.execution_meta.attempts).toBeGreaterThanOrEqual(1);
  }, 30_000);
});
