import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Capability, type CapabilityAudience, capabilitySigner, MAX_CLOCK_SKEW_MS } from "../../shared/access/capability-token.ts";
import { parseId } from "../../shared/ids.ts";
import { ChainFailed, definePlugin, type NodeContext, node, UpstreamUnavailable } from "../../shared/sdk/src/index.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { answer, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
type Work = (ctx: NodeContext, command: string) => Promise<string>;

const pluginOf = (name: string, work: Work, more: { dependencies?: string[]; timeoutSeconds?: number; maxRetries?: number; requiredScopes?: string[]; fallback?: string } = {}) =>
  definePlugin({
    name,
    version: "1.0.0",
    description: "One of those that call each other, for tests.",
    capabilities: [`Do what ${name} does.`],
    category: "testing",
    estimatedLatency: "medium",
    requiredScopes: ["plugin:chain", "store:write"],
    maxRetries: 0,
    ...more,
    dependencies: (more.dependencies ?? []).map((dependency) => ({ name: dependency, version: "^1.0.0" })),
    start: (input) => ({ command: input.task_description }),
    finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 0.9 }),
    graph: new StateGraph(State)
      .addNode(
        "work",
        node(async ({ command }: typeof State.State, ctx) => ({ text: await work(ctx, command) })),
      )
      .addEdge(START, "work")
      .addEdge("work", END),
  });

/** What the helper was told, in order, and those of its executions that wait. */
const told: string[] = [];
const waits = new Map<string, AbortSignal>();

const helper = pluginOf("helper", async (ctx, command) => {
  told.push(command);
  const [verb = "", ...rest] = command.split(" ");
  const words = rest.join(" ");
  if (verb === "say") return words;
  if (verb === "from") return `${ctx.input.metadata.source_plugin} ${ctx.input.attachments.map(({ content, origin }) => `${content} by ${origin?.plugin}`).join()}`;
  if (verb === "file") return (await ctx.artifacts.put({ name: "made.txt", mediaType: "text/plain", content: words })).name;
  if (verb === "ask") {
    const message = await ctx.anthropic.messages.create({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content: words }] });
    return message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
  }
  if (verb === "wait") {
    waits.set(words, ctx.signal);
    await new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason), { once: true }));
  }
  throw new Error("the helper fails");
});

const ATTACHED = [{ name: "a.txt", media_type: "text/plain", content: "text" }];

/** Has each line of its command done by the helper, and says what came of it. */
const bossOf = (name: string, more: Parameters<typeof pluginOf>[2] = {}) =>
  pluginOf(
    name,
    async (ctx, command) => {
      const said: string[] = [];
      for (const line of command.split("\n")) {
        try {
          const { result } = await ctx.chain("helper", { command: line, attachments: ATTACHED });
          said.push(result);
        } catch (error) {
          if (!(error instanceof ChainFailed) || line.endsWith("!")) throw error;
          said.push(error.code);
        }
      }
      return said.join("|");
    },
    { dependencies: ["helper"], ...more },
  );
const boss = bossOf("boss");
const hasty = bossOf("hasty", { timeoutSeconds: 8 });
const unscoped = bossOf("unscoped", { requiredScopes: ["store:write"], dependencies: [] });

/** Breaks off after what it had the helper do; another one answers, by itself or with what the helper said of the first line. */
const broken = bossOf("broken", { fallback: "understudy" });
const understudy = pluginOf(
  "understudy",
  async (ctx, command) => {
    const [first = ""] = command.split("\n");
    return first.includes("both") ? (await ctx.chain("helper", { command: first, attachments: ATTACHED })).result : "by itself";
  },
  { dependencies: ["helper"] },
);

let failures = 0;
/** Fails once after the helper has answered, and is then run again. */
const clumsy = pluginOf(
  "clumsy",
  async (ctx, command) => {
    const { result } = await ctx.chain("helper", { command });
    if (failures++ === 0) throw new UpstreamUnavailable("something else did not answer");
    return result;
  },
  { dependencies: ["helper"], maxRetries: 1 },
);
/** Each calls the next, and says what the last could not. */
const links = [1, 2, 3, 4, 5].map((n) =>
  pluginOf(
    `link-${n}`,
    async (ctx, command) => {
      try {
        return `${n}>${(await ctx.chain(`link-${n + 1}`, { command })).result}`;
      } catch (error) {
        return `${n}:${error instanceof ChainFailed ? error.code : error}`;
      }
    },
    { dependencies: n < 5 ? [`link-${n + 1}`] : [] },
  ),
);

let provider: ScriptedProvider;
let platform: TestPlatform;
beforeAll(async () => {
  provider = await startScriptedProvider(({ text }) => answer(`answer to ${text.length > 0}`, { usage: { input_tokens: 1000, output_tokens: 50 } }));
  platform = await startTestPlatform({
    plugins: [helper, boss, hasty, unscoped, clumsy, understudy, broken, ...links.toReversed()],
    env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted", TASK_LEASE_MS: "5000" },
  });
}, 60_000);
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});

const run = async (tenant: TestTenant, plugin: string, command: string, more: Record<string, unknown> = {}) =>
  (await tenant.api("POST", "/v1/tasks", { command, plugin, ...more }, { prefer: "wait=25" })).body;
const usageOf = async (tenant: TestTenant) =>
  Object.fromEntries(
    (
      await platform.db.call<{ plugin: string; used: number; reserved: number }>("SELECT plugin_name AS plugin, used, reserved FROM usage_periods WHERE tenant_id = $1", [
        tenant.tenantId,
      ])
    ).map(({ plugin, used, reserved }) => [plugin, [used, reserved]]),
  );
const billsOf = (tenant: TestTenant) =>
  platform.db.call("SELECT plugin_name, billable, status, tokens_used FROM execution_events WHERE tenant_id = $1 ORDER BY plugin_name, tokens_used", [tenant.tenantId]);

describe("a plugin that has another do its work", () => {
  it("gets the result, and the step is metered, billed and shown as its own", async () => {
    const tenant = await platform.tenant();
    const task = await run(tenant, "boss", "say hello\nask a question\nfrom whom");
    expect(task).toMatchObject({ status: "success", result: "hello|answer to true|boss text by boss" });
    expect(task.steps.map(({ plugin, status }: Record<string, string>) => [plugin, status])).toEqual([
      ["boss", "success"],
      ["helper", "success"],
      ["helper", "success"],
      ["helper", "success"],
    ]);
    expect(task.execution_meta.tokens_used).toBe(1050);
    expect(await usageOf(tenant)).toEqual({ boss: [1, 0], helper: [3, 0] });
    expect(await billsOf(tenant)).toEqual(
      [
        ["boss", "0"],
        ["helper", "0"],
        ["helper", "0"],
        ["helper", "1050"],
      ].map(([plugin_name, tokens_used]) => ({ plugin_name, billable: true, status: "success", tokens_used })),
    );
  });

  it("goes on without one that fails, which is not billed and gives its place in the quota back", async () => {
    const tenant = await platform.tenant();
    expect(await run(tenant, "boss", "break\nsay on")).toMatchObject({ status: "success", result: "INTERNAL|on" });
    expect(await usageOf(tenant)).toEqual({ boss: [1, 0], helper: [1, 0] });
    expect((await billsOf(tenant)).filter((row) => "billable" in row && row.billable === true)).toHaveLength(2);
  });

  it("fails as the other fails, when it does not go on, and then nothing of it is billed", async () => {
    const tenant = await platform.tenant();
    expect(await run(tenant, "boss", "say first\nbreak!")).toMatchObject({ status: "failed", error: { code: "DEPENDENCY_FAILED", cause: "upstream" } });
    expect(await usageOf(tenant)).toEqual({ boss: [0, 0], helper: [0, 0] });
    expect((await billsOf(tenant)).filter((row) => "billable" in row && row.billable === true)).toEqual([]);
  });

  it("has none of it billed when it fails and its fallback answers, but for what the fallback asked for as well", async () => {
    const tenant = await platform.tenant();
    const command = "ask for one alone\nbreak!";
    expect(await run(tenant, "broken", command)).toMatchObject({ status: "success", result: "by itself" });
    expect(await usageOf(tenant)).toEqual({ broken: [0, 0], understudy: [1, 0], helper: [0, 0] });
    const spent = await platform.db.call(
      "SELECT plugin_name, billable, cost_micro_usd = 0 AS free, unbilled_micro_usd > 0 AS kept FROM usage_days WHERE tenant_id = $1 AND executions > 0 ORDER BY 1, model NULLS FIRST",
      [tenant.tenantId],
    );
    expect(spent).toEqual([
      { plugin_name: "helper", billable: 0, free: true, kept: false },
      { plugin_name: "helper", billable: 0, free: true, kept: true },
      { plugin_name: "understudy", billable: 1, free: true, kept: false },
    ]);

    const other = await platform.tenant();
    expect(await run(other, "broken", "say both\nbreak!")).toMatchObject({ status: "success", result: "both" });
    expect(await usageOf(other)).toEqual({ broken: [0, 0], understudy: [1, 0], helper: [1, 0] });
    expect((await billsOf(other)).filter((row) => "billable" in row && row.billable === true)).toHaveLength(2);
  });

  it("is marked as overage beyond its quota, and its tenant is warned, though nobody calls it but other plugins", async () => {
    const tenant = await platform.tenant({ subscriptions: { boss: null, helper: 2 } });
    await platform.db.call("UPDATE subscriptions SET overage_enabled = true WHERE tenant_id = $1", [tenant.tenantId]);
    expect((await tenant.api("POST", "/v1/webhooks", { url: "https://hooks.example.com/quota", events: ["quota.warning"] })).status).toBe(201);
    expect(await run(tenant, "boss", "say 1\nsay 2\nsay 3")).toMatchObject({ result: "1|2|3" });
    const days = await platform.db.call("SELECT executions, overage FROM usage_days WHERE tenant_id = $1 AND plugin_name = 'helper'", [tenant.tenantId]);
    expect(days).toEqual([{ executions: 3, overage: 1 }]);
    const warnings = await platform.db.call("SELECT data->>'percent' AS percent FROM webhook_deliveries WHERE tenant_id = $1 AND data->>'plugin' = 'helper' ORDER BY id", [
      tenant.tenantId,
    ]);
    expect(warnings).toEqual([{ percent: "80" }, { percent: "100" }]);
  });

  it("stores the other's files under the other's name, where the task's caller finds them", async () => {
    const tenant = await platform.tenant();
    const task = await run(tenant, "boss", "file content");
    expect(task.result).toBe("made.txt");
    const rows = await platform.db.call("SELECT plugin_name, name FROM artifacts WHERE task_id = $1", [parseId("task", task.task_id)]);
    expect(rows).toEqual([{ plugin_name: "helper", name: "made.txt" }]);
  });

  it("is not asked twice by a later try: what has an answer keeps it", async () => {
    const tenant = await platform.tenant();
    const before = told.length;
    expect(await run(tenant, "clumsy", "say once")).toMatchObject({ status: "success", result: "once" });
    expect(failures).toBe(2);
    expect(told.slice(before)).toEqual(["say once"]);
    expect(await usageOf(tenant)).toEqual({ clumsy: [1, 0], helper: [1, 0] });
  });
});

describe("a call from plugin to plugin is refused", () => {
  it("where the tenant has no subscription to the other plugin, its tier has no chains, or its quota is used up; nothing stays reserved", async () => {
    const none = await platform.tenant({ subscriptions: { boss: null } });
    expect(await run(none, "boss", "say x")).toMatchObject({ status: "success", result: "PLUGIN_NOT_SUBSCRIBED" });
    expect(await run(none, "boss", "say x!")).toMatchObject({ status: "failed", error: { code: "PLUGIN_NOT_SUBSCRIBED", cause: "caller" } });
    expect(await usageOf(none)).toEqual({ boss: [1, 0] });

    const starter = await platform.tenant({ tier: "starter" });
    expect((await run(starter, "boss", "say x")).result).toBe("CHAINING_NOT_INCLUDED");

    const poor = await platform.tenant({ subscriptions: { boss: null, helper: 2 } });
    expect((await run(poor, "boss", "say 1\nsay 2\nsay 3")).result).toBe("1|2|QUOTA_EXCEEDED");
    expect(await usageOf(poor)).toEqual({ boss: [1, 0], helper: [2, 0] });
  });

  it("beyond three deep, and beyond twenty in one task", async () => {
    const tenant = await platform.tenant();
    expect((await run(tenant, "link-1", "down")).result).toBe("1>2>3>4:CHAIN_LIMIT");
    const many = (await run(tenant, "boss", Array.from({ length: 22 }, (_, n) => `say ${n}`).join("\n"))).result.split("|");
    expect(many.slice(0, 20)).toEqual(Array.from({ length: 20 }, (_, n) => `${n}`));
    expect(many.slice(20)).toEqual(["CHAIN_LIMIT", "CHAIN_LIMIT"]);
  });

  it("where the manifest asks for no such scope", async () => {
    expect(await run(await platform.tenant(), "unscoped", "say x")).toMatchObject({ status: "failed", error: { code: "INTERNAL", cause: "plugin" } });
  });
});

describe("time, money and end are those of the whole task", () => {
  const waiting = async (name: string): Promise<AbortSignal> => {
    await expect.poll(() => waits.has(name), { timeout: 15_000 }).toBe(true);
    return waits.get(name) ?? expect.fail("it does not wait");
  };

  it("stops the other plugin in time for the first one to say so", async () => {
    expect(await run(await platform.tenant(), "hasty", "wait late")).toMatchObject({ status: "success", result: "PLUGIN_TIMEOUT" });
    expect((await waiting("late")).aborted).toBe(true);
  });

  it("stops it when the task is cancelled", async () => {
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "wait cancel", plugin: "boss" });
    const signal = await waiting("cancel");
    await tenant.api("DELETE", `/v1/tasks/${body.task_id}`);
    await expect.poll(() => signal.aborted, { timeout: 10_000 }).toBe(true);
    expect((await tenant.api("GET", `/v1/tasks/${body.task_id}?wait=20`)).body.status).toBe("cancelled");
    expect(await usageOf(tenant)).toEqual({ boss: [0, 0], helper: [0, 0] });
  });

  it("refuses its model calls when the task's money is spent", async () => {
    const task = await run(await platform.tenant(), "boss", "ask x", { max_cost_usd: "0.000100" });
    expect(task).toMatchObject({ status: "success", result: "TOKEN_BUDGET_EXCEEDED" });
  });

  /** A task whose helper waits, and the capability that its boss holds meanwhile. */
  async function held(tenant: TestTenant, command: string, name: string): Promise<{ capability: Omit<Capability, "v">; taskId: string }> {
    const { body } = await tenant.api("POST", "/v1/tasks", { command, plugin: "boss" });
    await waiting(name);
    const task = parseId("task", body.task_id) ?? "";
    const [row] = await platform.db.call<{ lease_token: string; attempt: number }>("SELECT lease_token, attempt FROM tasks WHERE id = $1", [task]);
    const { lease_token: lease = "", attempt = 1 } = row ?? {};
    const capability = {
      aud: "chain" as const,
      tenant: tenant.tenantId,
      task,
      attempt,
      step: "main",
      plugin: "boss",
      version: "1.0.0",
      scopes: ["plugin:chain" as const],
      token_budget: 50_000,
      lease,
      exp: Date.now() + 60_000,
    };
    return { capability, taskId: body.task_id };
  }

  const knock = async (capability: Omit<Capability, "v">, command: string, plugin = "helper", attachments: unknown[] = []) => {
    const response = await fetch(`${platform.internalUrl}/internal/chain/${plugin}`, {
      method: "POST",
      headers: { authorization: `Bearer ${capabilitySigner(platform.env.CAPABILITY_KEY ?? "").mint(capability)}`, "content-type": "application/json" },
      body: JSON.stringify({ command, attachments }),
    });
    return { status: response.status, text: await response.text() };
  };

  it("opens to a capability of its own kind, scope, plugin and live step only", async () => {
    const tenant = await platform.tenant();
    const { capability, taskId } = await held(tenant, "wait doors", "doors");
    expect((await knock(capability, "say hi")).text).toContain('"result":"hi"');
    for (const aud of ["llm", "scoped"] satisfies CapabilityAudience[]) expect((await knock({ ...capability, aud }, "say hi")).status, aud).toBe(401);
    expect((await knock({ ...capability, exp: Date.now() - MAX_CLOCK_SKEW_MS - 1 }, "say hi")).status).toBe(401);
    expect((await knock({ ...capability, scopes: [] }, "say hi")).status).toBe(403);
    expect((await knock(capability, "say hi", "link-1")).status).toBe(403);
    expect((await knock(capability, "say hi", "Not%20A%20Name")).status).toBe(404);
    expect((await knock(capability, "")).status).toBe(422);
    expect((await knock({ ...capability, lease: "00000000-0000-4000-8000-000000000000" }, "say hi")).status).toBe(409);
    const other = await platform.tenant();
    expect((await knock({ ...capability, tenant: other.tenantId }, "say hi")).status).toBe(409);
    // The very question that is open already: one at a time.
    expect((await knock(capability, "wait doors", "helper", ATTACHED)).status).toBe(409);
    await tenant.api("DELETE", `/v1/tasks/${taskId}`);
    await tenant.api("GET", `/v1/tasks/${taskId}?wait=20`);
    expect((await knock(capability, "say hi")).status).toBe(409);
  });

  it("closes every door to a step's capability when the step has ended, while the task goes on", async () => {
    const tenant = await platform.tenant();
    const plan = [
      { id: "first", plugin: "helper", command: "say x" },
      { id: "second", plugin: "helper", command: "wait steps", needs: ["first"] },
    ];
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "x", plan });
    await waiting("steps");
    const task = parseId("task", body.task_id) ?? "";
    const [row] = await platform.db.call<{ lease_token: string }>("SELECT lease_token FROM tasks WHERE id = $1", [task]);
    const tokenOf = (step: string, aud: CapabilityAudience) =>
      capabilitySigner(platform.env.CAPABILITY_KEY ?? "").mint({
        aud,
        tenant: tenant.tenantId,
        task,
        attempt: 1,
        step,
        plugin: "helper",
        version: "1.0.0",
        scopes: ["store:write", "tickets:write", "plugin:chain", "knowledge:read", "knowledge:write"],
        token_budget: 100,
        lease: row?.lease_token ?? "",
        exp: Date.now() + 60_000,
      });
    const open = async (step: string) => {
      const call = async (aud: CapabilityAudience, method: string, path: string, sent?: unknown) =>
        (
          await fetch(`${platform.internalUrl}${path}`, {
            method,
            headers: { authorization: `Bearer ${tokenOf(step, aud)}`, "content-type": "application/json" },
            body: sent === undefined ? undefined : JSON.stringify(sent),
          })
        ).status;
      const question = { model: "claude-sonnet-4-6", max_tokens: 10, messages: [{ role: "user", content: "x" }] };
      return [
        await call("scoped", "GET", "/internal/scoped/cancel"),
        await call("scoped", "PUT", "/internal/scoped/artifacts/x.txt", "x"),
        await call("scoped", "POST", "/internal/scoped/knowledge", { content: "What a plugin found out." }),
        await call("scoped", "POST", "/internal/scoped/tickets", { tickets: [{ fingerprint: "a".repeat(64), title: "It hangs", type: "bug", priority: "low" }] }),
        await call("scoped", "PATCH", "/internal/scoped/tickets/T-1", { team: step }),
        await call("scoped", "POST", "/internal/scoped/progress", { node: "n", message: "Still here" }),
        await call("llm", "POST", "/internal/llm/v1/messages", question),
      ];
    };
    expect(await open("second")).toEqual([200, 201, 202, 200, 200, 200, 200]);
    expect(await open("first")).toEqual([409, 409, 409, 409, 409, 409, 403]);
    await tenant.api("DELETE", `/v1/tasks/${body.task_id}`);
    await tenant.api("GET", `/v1/tasks/${body.task_id}?wait=20`);
    // That it was cancelled, it may still hear.
    expect(await open("second")).toEqual([200, 409, 409, 409, 409, 409, 403]);
  });
});
