import type Anthropic from "@anthropic-ai/sdk";
import { MessageStream } from "@anthropic-ai/sdk/lib/MessageStream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { answer, blocks, hang, hold, toolUse } from "../support/scripted-provider.ts";
import { ASK, openRig, type Rig, type RigOptions, type Servers, startServers } from "./llm-gateway-rig.ts";

let servers: Servers;
let rig: Rig | undefined;
beforeAll(async () => {
  servers = await startServers();
}, 60_000);
afterAll(() => servers.stop());
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});
const open = async (options?: RigOptions): Promise<Rig> => {
  rig = await openRig(servers, options);
  return rig;
};

describe("a call", () => {
  test("is answered with the provider's own bytes, and journalled with its usage and price", async () => {
    const { client, journal, provider } = await open({
      script: () => answer("Hello.", { usage: { input_tokens: 1_000, output_tokens: 200, cache_creation_input_tokens: 40, cache_read_input_tokens: 8 } }),
    });
    const message = await client().messages.create(ASK, { headers: { "aau-node": "security%20scan" } });
    expect(message.content).toEqual([{ type: "text", text: "Hello." }]);
    const [row, ...more] = await journal();
    expect(more).toEqual([]);
    expect(row).toMatchObject({
      state: "done",
      call_no: 1,
      node: "security scan",
      model: "claude-sonnet-4-6",
      input_tokens: 1_000,
      output_tokens: 200,
      cache_write_tokens: 40,
      cache_read_tokens: 8,
    });
    // 1000 × 3 + 200 × 15 + 40 × 3.75 + 8 × 0.3 = 6152.4 micro-USD, rounded up
    expect(row?.cost_micro_usd).toBe("6153");
    expect(row?.provider_request_id).toBe(provider.ledger[0]?.requestId);
    expect(Number(row?.ceiling_micro_usd)).toBeGreaterThan(6153);
  });

  test("carries the platform's key to the provider, and never the plugin's token", async () => {
    const seen: Record<string, string | undefined>[] = [];
    const { client, token } = await open({ script: ({ headers }) => answer(`request ${seen.push(headers)}`) });
    await client().messages.create(ASK, { headers: { "anthropic-beta": "some-feature-2026-01-01", cookie: "plugin=1" } });
    expect(seen[0]).toMatchObject({ "x-api-key": "sk-ant-scripted", "anthropic-version": "2023-06-01", "anthropic-beta": "some-feature-2026-01-01" });
    expect(JSON.stringify(seen)).not.toContain(token().slice(0, 40));
    expect(seen[0]?.cookie).toBeUndefined();
  });

  test("says how much of the plugin's token budget is used", async () => {
    const { client, token, task, metrics } = await open({ script: () => answer("ok", { usage: { input_tokens: 60, output_tokens: 40 } }) });
    const key = token(task, { tokenBudget: 150 });
    const used: (string | null)[] = [];
    for (const content of ["first", "second"]) {
      const { response } = await client(key)
        .messages.create({ ...ASK, messages: [{ role: "user", content }] })
        .withResponse();
      used.push(response.headers.get("aau-tokens-used"));
      expect(response.headers.get("aau-budget")).toBe("150");
    }
    expect(used).toEqual(["100", "200"]);
    expect(await metrics()).toContain('aau_plugin_token_usage_total{plugin="code-review",model="claude-sonnet-4-6"} 200');
  });

  test("goes to the model that the operator has set", async () => {
    const { client, journal, provider } = await open({ script: () => answer("ok"), model: "local-model" });
    await client().messages.create(ASK);
    expect(provider.ledger[0]?.model).toBe("local-model");
    expect((await journal())[0]).toMatchObject({ model: "local-model" });
  });

  test("costs nothing at a server that is reached without a key, and its tokens are counted all the same", async () => {
    const { client, journal, newTask, token } = await open({ script: () => answer("ok"), apiKey: null });
    const poor = await newTask({ maxCostMicroUsd: 0 });
    await client(token(poor)).messages.create(ASK);
    expect(await journal(poor)).toMatchObject([{ state: "done", cost_micro_usd: "0", ceiling_micro_usd: "0", price_version: "unpriced", input_tokens: 100, output_tokens: 20 }]);
  });

  test.each(["max_tokens", "refusal"])("that stops with %s is an answer like any other", async (stopReason) => {
    const { client, journal } = await open({ script: () => blocks([], { stopReason }) });
    expect(await client().messages.create(ASK)).toMatchObject({ stop_reason: stopReason, content: [] });
    expect(await journal()).toMatchObject([{ state: "done", output_tokens: 20 }]);
  });

  test.each([
    ["is missing", null],
    ["is nonsense", { input_tokens: -5, output_tokens: 1.5 }],
  ])("whose usage %s is settled at an estimate that says so", async (_, usage) => {
    const { client, journal } = await open({ script: () => answer("x".repeat(400), { usage }) });
    await client().messages.create(ASK);
    const [row] = await journal();
    expect(row).toMatchObject({ state: "done", usage: { estimated: true } });
    expect(row?.output_tokens).toBeGreaterThanOrEqual(100);
    expect(Number(row?.cost_micro_usd)).toBeGreaterThan(0);
  });

  test("is billed as the provider counted, also above what was asked", async () => {
    const { client, journal } = await open({ script: () => answer("ok", { usage: { input_tokens: 9_000_000, output_tokens: 5_000 } }) });
    await client().messages.create(ASK);
    expect((await journal())[0]).toMatchObject({ input_tokens: 9_000_000, output_tokens: 5_000, cost_micro_usd: "27075000" });
  });
});

describe("a stream", () => {
  const content = [
    { type: "thinking", thinking: "Let me think.", signature: "c2ln" },
    { type: "text", text: "Zeile eins\nund zwei — ümläut 🌍" },
    { type: "tool_use", id: "toolu_1", name: "look", input: { zebra: 1, a: { nested: ["\u0000", "x"] }, mm: "é" } },
  ];

  test("passes through byte for byte", async () => {
    const { post, provider } = await open({ script: () => blocks(content, { stopReason: "tool_use" }) });
    const ask = { ...ASK, stream: true };
    const through = await (await post(ask)).text();
    const direct = await (await fetch(`${provider.url}/v1/messages`, { method: "POST", body: JSON.stringify(ask) })).text();
    expect(through).toBe(direct.replaceAll("msg_scripted_2", "msg_scripted_1"));
  });

  test("is journalled before its last event reaches the plugin", async () => {
    const held = hold();
    const { client, journal } = await open({ script: () => answer("one two three", { breakAfter: 1, breakBy: "pause", until: held.gone }) });
    const states: Record<string, string | undefined> = {};
    for await (const event of await client().messages.create({ ...ASK, stream: true })) {
      if (event.type !== "content_block_delta" && event.type !== "message_stop") continue;
      states[event.type] ??= (await journal())[0]?.state;
      held.letGo();
    }
    expect(states).toEqual({ content_block_delta: "started", message_stop: "done" });
    expect(await journal()).toMatchObject([{ input_tokens: 100, output_tokens: 20, cost_micro_usd: "600" }]);
  });

  test("that is asked for again is told from the journal, and gives the same message", async () => {
    const { client, takeOver, token, provider } = await open({ script: () => blocks(content, { stopReason: "tool_use" }) });
    const first = await collect(await client().messages.create({ ...ASK, stream: true }));
    const retry = token(await takeOver());
    const { data, response } = await client(retry)
      .messages.create({ ...ASK, stream: true })
      .withResponse();
    expect(response.headers.get("aau-replayed")).toBe("true");
    const replayed = await collect(data);
    expect(first.content).toMatchObject(content);
    // The plugin's next request holds these blocks; another order of keys would make it another request, and be paid again.
    expect(JSON.stringify(replayed)).toBe(JSON.stringify(first));
    expect(provider.ledger).toHaveLength(1);
  });

  /** What the stock client makes of a stream. */
  async function collect(events: AsyncIterable<Anthropic.RawMessageStreamEvent>): Promise<Anthropic.Message> {
    const lines = async function* () {
      for await (const event of events) yield Buffer.from(`${JSON.stringify(event)}\n`);
    };
    return MessageStream.fromReadableStream(ReadableStream.from(lines())).finalMessage();
  }
});

describe("a replay", () => {
  test("returns the journalled bytes to a later attempt, and is not paid again", async () => {
    const { post, takeOver, token, provider, journal, task } = await open({ script: () => toolUse("look", { zebra: 1, alpha: 2 }) });
    const first = await post(ASK);
    const original = await first.text();
    const again = await post(ASK, { token: token(await takeOver()) });
    expect(await again.text()).toBe(original);
    expect(again.headers.get("aau-replayed")).toBe("true");
    expect(provider.ledger).toHaveLength(1);
    expect(await journal(task)).toHaveLength(1);
  });

  test("is for the same request of the same node, as often as it was made before", async () => {
    const { post, provider } = await open({ script: ({ call }) => answer(`answer ${call}`) });
    const asks: Record<string, string>[] = [
      { "aau-node": "a" },
      { "aau-node": "b" },
      { "aau-node": "a", "aau-occurrence": "2" },
      { "aau-node": "a" },
      { "aau-node": "a", "aau-occurrence": "2" },
    ];
    const texts: string[] = [];
    for (const headers of asks) texts.push(((await (await post(ASK, { headers })).json()) as Anthropic.Message).id);
    expect(texts).toEqual(["msg_scripted_1", "msg_scripted_2", "msg_scripted_3", "msg_scripted_1", "msg_scripted_3"]);
    expect(provider.ledger).toHaveLength(3);
  });

  test("waits for nobody: the same call while it is open is refused for the moment", async () => {
    const release = hold();
    const { post, provider } = await open({ script: () => answer("ok", { after: release.gone }) });
    const first = post(ASK);
    await provider.arrived(1);
    const second = await post(ASK);
    expect([second.status, second.headers.get("retry-after")]).toEqual([409, "1"]);
    release.letGo();
    expect((await first).status).toBe(200);
    expect(provider.ledger).toHaveLength(1);
  });

  test("gives up a call whose gateway died, so that the same attempt can make it again", async () => {
    const { post, provider, journal, task } = await open({ script: () => answer("ok") });
    // What a gateway leaves behind that was killed between the journal and the answer.
    await post(ASK);
    await servers.admin.query("UPDATE llm_calls SET state = 'started', answer = NULL, cost_micro_usd = 0, seen_at = now() - interval '1 minute' WHERE task_id = $1", [task.id]);
    expect((await post(ASK)).status).toBe(200);
    expect(provider.ledger).toHaveLength(2);
    expect((await journal()).map((row) => row.state)).toEqual(["unknown", "done"]);
  });
});

describe("money", () => {
  test("a call that could cost more than is left is refused before the provider hears of it", async () => {
    const { client, newTask, token, journal } = await open();
    const poor = await newTask({ maxCostMicroUsd: 15_000 });
    const error = await client(token(poor))
      .messages.create(ASK)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ status: 403, type: "permission_error", errorCode: "TOKEN_BUDGET_EXCEEDED", message: expect.stringContaining("max_cost_usd") });
    expect(await journal(poor)).toEqual([]);
  });

  test("calls that are open at the same time cannot spend the same money", async () => {
    const release = hold();
    const { post, newTask, token, provider, journal } = await open({ script: () => answer("ok", { after: release.gone }) });
    const probe = await newTask();
    const first = post(ASK, { token: token(probe) });
    await provider.arrived(1);
    const ceiling = Number((await journal(probe))[0]?.ceiling_micro_usd);
    const poor = await newTask({ maxCostMicroUsd: Math.floor(ceiling * 3.5) });
    const statuses: number[] = [];
    const sevenRefused = hold();
    const many = Array.from({ length: 10 }, async (_, index) => {
      const { status } = await post(ASK, { token: token(poor), headers: { "aau-occurrence": String(index + 1) } });
      if (statuses.push(status) === 7) sevenRefused.letGo();
    });
    await sevenRefused.gone;
    expect(statuses).toEqual(Array.from({ length: 7 }, () => 403));
    release.letGo();
    await Promise.all(many);
    expect(statuses.slice(7)).toEqual([200, 200, 200]);
    await first;
    expect((await journal(poor)).reduce((sum, row) => sum + Number(row.cost_micro_usd), 0)).toBeLessThanOrEqual(ceiling * 3.5);
  });
});

describe("who may call", () => {
  test.each([
    ["no token", {}, ""],
    ["the token of another door", { aud: "scoped" as const }, undefined],
  ])("%s is answered in the protocol's words", async (_, claims, given) => {
    const { post, token, task } = await open();
    const response = await post(ASK, { token: given ?? token(task, claims) });
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ type: "error", error: { type: "authentication_error" } });
  });

  test("an executor that has lost the task can spend nothing", async () => {
    const { post, takeOver, journal } = await open();
    await takeOver();
    const response = await post(ASK);
    expect([response.status, response.headers.get("aau-error-code")]).toEqual([403, "LEASE_LOST"]);
    expect(await journal()).toEqual([]);
  });

  test("a tenant cannot spend on, or read from, another's task", async () => {
    const { post, newTask, token, task, provider, journal } = await open({ script: () => answer("a secret of the first tenant") });
    await post(ASK);
    const stranger = await newTask();
    const response = await post(ASK, { token: token({ ...task, tenant: stranger.tenant }) });
    expect([response.status, response.headers.get("aau-error-code")]).toEqual([403, "LEASE_LOST"]);
    expect(await response.text()).not.toContain("secret");
    expect(provider.ledger).toHaveLength(1);
    expect(await journal()).toHaveLength(1);
  });

  test("a task that is asked to stop makes no more calls", async () => {
    const { post, requestCancel } = await open();
    await requestCancel();
    const response = await post(ASK);
    expect([response.status, response.headers.get("aau-error-code")]).toEqual([403, "CANCELLED"]);
  });
});

describe("a request that is not passed on", () => {
  test.each<[string, unknown, RegExp]>([
    ["is no JSON", "{", /JSON object/],
    ["is a list", [], /JSON object/],
    ["names no model", { ...ASK, model: undefined }, /model/],
    ["has no limit", { ...ASK, max_tokens: undefined }, /max_tokens/],
    ["has no messages", { ...ASK, messages: [] }, /messages/],
    [
      "lets the provider fetch an address",
      { ...ASK, messages: [{ role: "user", content: [{ type: "image", source: { type: "url", url: "https://evil.example/?q=secret" } }] }] },
      /content itself/,
    ],
    [
      "hides an address in a tool's result",
      {
        ...ASK,
        messages: [{ role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: [{ type: "document", source: { type: "url", url: "https://evil.example" } }] }] }],
      },
      /content itself/,
    ],
    ["lets the provider search the web", { ...ASK, tools: [{ type: "web_search_20250305", name: "web_search" }] }, /tools.0/],
    ["connects the provider to a server", { ...ASK, mcp_servers: [{ type: "url", url: "https://evil.example" }] }, /mcp_servers/],
    ["asks for a speed that has another price", { ...ASK, speed: "fast" }, /speed/],
  ])("because it %s leaves no trace", async (_, body, message) => {
    const { post, journal } = await open();
    const response = await post(body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ type: "error", error: { type: "invalid_request_error", message: expect.stringMatching(message) } });
    expect(await journal()).toEqual([]);
  });

  test("is larger than 12 MB", async () => {
    const { post } = await open();
    const response = await post({ ...ASK, messages: [{ role: "user", content: "x".repeat(12 * 1024 * 1024) }] });
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ type: "error", error: { type: "request_too_large" } });
  });

  test("is nested so deeply that it could not be written again", async () => {
    const { post } = await open();
    const deep = `${'[{"type":"tool_result","content":'.repeat(100_000)}[]${"}]".repeat(100_000)}`;
    const response = await post(`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":${deep}}]}`);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("nested");
  });
});

describe("without a provider", () => {
  test("answers are extractive, cost nothing, and say what to set", async () => {
    const { client, journal } = await open({ baseUrl: "offline" });
    const message = await client().messages.create(ASK);
    expect(message).toMatchObject({ model: "offline-extractive", usage: { input_tokens: 0, output_tokens: 0 } });
    expect(JSON.stringify(message.content)).toContain("ANTHROPIC_API_KEY");
    expect(await journal()).toMatchObject([{ state: "done", model: "offline-extractive", cost_micro_usd: "0" }]);
  });

  test("they stream like a provider's", async () => {
    const { client } = await open({ baseUrl: "offline" });
    const message = await client().messages.stream(ASK).finalMessage();
    expect(message).toMatchObject({ model: "offline-extractive", stop_reason: "end_turn" });
  });

  test("health says so", async () => {
    const { url, token } = await open({ baseUrl: "offline" });
    const response = await fetch(`${url}/internal/llm/health`, { headers: { "x-api-key": token() } });
    expect(await response.json()).toEqual({ status: "healthy", models: "offline" });
  });
});

describe("the other doors", () => {
  test("embeddings come in the shape of their protocol", async () => {
    const { post } = await open();
    const response = await post({ input: ["ab", "cde"] }, { path: "/internal/llm/v1/embeddings" });
    expect(await response.json()).toMatchObject({
      object: "list",
      model: "scripted-embedding",
      data: [
        { index: 0, embedding: [2, 1] },
        { index: 1, embedding: [3, 1] },
      ],
    });
  });

  test("embeddings are for executions that hold their task", async () => {
    const { post, takeOver } = await open();
    await takeOver();
    expect((await post({ input: "ab" }, { path: "/internal/llm/v1/embeddings" })).status).toBe(403);
  });

  test("counting tokens is not there, in the protocol's words", async () => {
    const { client } = await open();
    await expect(client().messages.countTokens({ model: ASK.model, messages: ASK.messages })).rejects.toMatchObject({ status: 404, type: "not_found_error" });
  });
});

test("a gateway that stops lets no call of the provider live on", async () => {
  const { post, provider, stop } = await open({ script: () => hang() });
  const call = post(ASK).catch(() => null);
  await provider.arrived(1);
  rig = undefined;
  await stop();
  await call;
  expect(provider.ledger[0]).toMatchObject({ closedEarly: true });
});
