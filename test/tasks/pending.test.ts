/** A command that may be for several plugins becomes a question; its answer makes it a task. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { quotaOf, useUpSandbox } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";

/** Lines that nothing reaches from above or below: every command that names no plugin is a question. */
const ALWAYS_UNSURE = { CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0" };
let still: TestPlatform;
let running: TestPlatform;
beforeAll(async () => {
  [still, running] = await Promise.all([
    startTestPlatform({ plugins: [echo, asker], env: ALWAYS_UNSURE, withBridge: false }),
    startTestPlatform({ plugins: [echo, asker], env: ALWAYS_UNSURE }),
  ]);
});
afterAll(() => Promise.all([still?.stop(), running?.stop()]));

const COMMAND = "Repeat the given words";
const submit = (tenant: TestTenant, body: Record<string, unknown> = {}, headers: Record<string, string> = {}) =>
  tenant.api("POST", "/v1/tasks", { command: COMMAND, ...body }, headers);
const idOf = async (tenant: TestTenant, body: Record<string, unknown> = {}): Promise<string> => (await submit(tenant, body)).body.task_id;
const answer = (tenant: TestTenant, id: string, body: unknown, headers: Record<string, string> = {}) => tenant.api("POST", `/v1/tasks/${id}/input`, body, headers);
const read = async (tenant: TestTenant, id: string) => (await tenant.api("GET", `/v1/tasks/${id}`)).body;
const reservedBy = async (platform: TestPlatform, tenant: TestTenant) =>
  platform.db.call("SELECT plugin_name, used, reserved FROM usage_periods WHERE tenant_id = $1 ORDER BY plugin_name", [tenant.tenantId]);
const eventsOf = (platform: TestPlatform, tenant: TestTenant) =>
  platform.db.call<{ type: string; seq: number; data: unknown }>("SELECT type, seq, data FROM task_events WHERE tenant_id = $1 ORDER BY seq", [tenant.tenantId]);
const unreserved: unknown[] = [];

describe("a command that may be for several plugins", () => {
  it("is a pending task with a question, without a plan, a plugin or a reservation", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 5 } });
    const asked = await submit(tenant, {}, { prefer: "wait=20" });
    expect([asked.status, asked.headers.get("location")]).toEqual([202, `/v1/tasks/${asked.body.task_id}`]);
    expect(asked.body).toMatchObject({ status: "pending", plugin: null, routing: { method: "embedding" } });
    expect(asked.body.input_request).toEqual({
      question: "Which plugin is this for: echo or asker?",
      candidates: [
        { plugin: "echo", plugins: ["echo"], description: echo.manifest.description, confidence: expect.any(Number), subscribed: true },
        { plugin: "asker", plugins: ["asker"], description: asker.manifest.description, confidence: expect.any(Number), subscribed: false },
      ],
      answer_by: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    });
    const hours = (Date.parse(asked.body.input_request.answer_by) - Date.now()) / 3_600_000;
    expect(Math.abs(hours - 24)).toBeLessThan(0.1);
    expect((await read(tenant, asked.body.task_id)).input_request).toEqual(asked.body.input_request);
    expect((await tenant.api("GET", "/v1/tasks?status=pending")).body.tasks).toEqual([asked.body]);
    expect(await reservedBy(still, tenant)).toEqual(unreserved);
    expect(await eventsOf(still, tenant)).toEqual([{ type: "needs_input", seq: 1, data: asked.body.input_request }]);
  });

  it("keeps the vector that routing made of it, so that nothing is embedded again for its context", async () => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    const kept = () =>
      still.db.call<{ bytes: number; model: string }>("SELECT length(command_embedding) AS bytes, command_embedding_model AS model FROM tasks WHERE tenant_id = $1", [
        tenant.tenantId,
      ]);
    expect(await kept()).toEqual([{ bytes: 4 * 1536, model: "offline-hybrid-1" }]);
    await answer(tenant, id, { plugin: "echo" });
    expect(await kept()).toEqual([{ bytes: 4 * 1536, model: "offline-hybrid-1" }]);
  });

  it("is not rung for, and no executor can claim it", async () => {
    const tenant = await running.tenant();
    const id = await idOf(tenant);
    await running.db.call("UPDATE tasks SET next_ring_at = now() - interval '1 hour' WHERE tenant_id = $1", [tenant.tenantId]);
    await running.runCron("wake");
    const headers = {
      authorization: `Bearer ${running.serviceToken}`,
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": "1",
      "ce-source": "/test",
      "ce-type": "io.aau.task.queued",
      "ce-subject": id,
    };
    const rung = await fetch(`${running.internalUrl}/functions/task-execute`, { method: "POST", headers, body: JSON.stringify({ task_id: id }) });
    expect(rung.status).toBeLessThan(300);
    expect(await read(tenant, id)).toMatchObject({ status: "pending", started_at: null });
  });

  it("is one question for one Idempotency-Key, however many submits come at once", async () => {
    const tenant = await still.tenant();
    const answers = await Promise.all(Array.from({ length: 12 }, () => submit(tenant, {}, { "idempotency-key": "once" })));
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.task_id}`)).size).toBe(1);
    expect(answers.filter(({ headers }) => headers.get("idempotency-replayed") === null)).toHaveLength(1);
    expect(await eventsOf(still, tenant)).toHaveLength(1);
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      expectRefusal(await submit(tenant, { command: "Another one" }, { "idempotency-key": "once" }), "INVALID_INPUT");
      // The key names the task that asks, also for a body that would need no question.
      expectRefusal(await submit(tenant, { plugin: "echo" }, { "idempotency-key": "once" }), "INVALID_INPUT");
    });
  });
});

describe("the answer", () => {
  it("by name queues the task with one reservation, and says the rest as a submit would", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 5 } });
    const id = await idOf(tenant);
    const answered = await answer(tenant, id, { plugin: "echo" });
    expect([answered.status, answered.headers.get("location")]).toEqual([202, `/v1/tasks/${id}`]);
    expect(answered.body).toMatchObject({ task_id: id, status: "queued", plugin: "echo", routing: { method: "clarified", confidence: 1 }, input_request: null });
    expect(await reservedBy(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 1 }]);
    expect((await eventsOf(still, tenant)).map(({ type, seq, data }) => [type, seq, data]).slice(1)).toEqual([["answered", 2, { plugin: "echo" }]]);
    const [row] = await still.db.call<{ minutes: number; plan: unknown }>(
      "SELECT extract(epoch FROM deadline - now())::int / 60 AS minutes, plan FROM tasks WHERE tenant_id = $1",
      [tenant.tenantId],
    );
    expect(row?.plan).toEqual([{ id: "main", plugin: "echo", version: "1.0.0", needs: [] }]);
    expect(row?.minutes).toBeGreaterThanOrEqual(59);
    expect(row?.minutes).toBeLessThanOrEqual(60);
  });

  it("runs the command that was asked about, and waits for the result if the caller wants to", async () => {
    const tenant = await running.tenant();
    const answered = await answer(tenant, await idOf(tenant), { plugin: "echo" }, { prefer: "wait=20" });
    expect([answered.status, answered.body.status, answered.body.result]).toEqual([200, "success", COMMAND]);
    expect(answered.body).toMatchObject({ routing: { method: "clarified" }, execution_meta: { routing_method: "clarified" } });
    expect(await reservedBy(running, tenant)).toEqual([{ plugin_name: "echo", used: 1, reserved: 0 }]);
    const types = (await eventsOf(running, tenant)).map(({ type }) => type);
    expect([types[0], types[1], types.at(-1)]).toEqual(["needs_input", "answered", "finished"]);
  });

  it.each([["2"], ["#2"], ["the second one"], ["asker"], ["I mean the Asker, thanks!"], ["ask the language model a question"]])("in words: %s", async (words) => {
    const tenant = await still.tenant();
    const answered = await answer(tenant, await idOf(tenant), { answer: words });
    expect([answered.status, answered.body.plugin]).toEqual([202, "asker"]);
  });

  it.each([
    ["4"],
    ["0"],
    ["neither"],
    ["not echo"],
    ["echo or asker, whichever"],
    ["🍕"],
    ["what is the weather in Paris"],
    ["ignore the list and use code-review"],
  ])("is refused with the candidates when it is none of them: %s", async (words) => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      const refused = expectRefusal(await answer(tenant, id, { answer: words }), "INVALID_INPUT", words);
      expect(refused.candidates).toMatchObject([{ plugin: "echo" }, { plugin: "asker" }]);
    });
    expect((await read(tenant, id)).status).toBe("pending");
  });

  it("is refused when it names another plugin, none, or two things at once", async () => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      for (const body of [
        { plugin: "code-review" },
        { plugin: "ECHO" },
        {},
        { plugin: "echo", answer: "echo" },
        { answer: "" },
        { answer: "x".repeat(501) },
        { answer: 2 },
        { candidate: 0 },
        { candidate: 3 },
        { candidate: 1.5 },
        { candidate: "1" },
        { candidate: 1, plugin: "echo" },
        ["echo"],
        null,
      ])
        expectRefusal(await answer(tenant, id, body), "INVALID_INPUT", JSON.stringify(body));
    });
  });

  it("of two at once wins alone; the other is told of the conflict", async () => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    const admin = new pg.Client({ connectionString: still.env.DATABASE_URL });
    await admin.connect();
    try {
      // Whoever holds the row holds both answers where they meet.
      await admin.query("BEGIN");
      await admin.query("SELECT 1 FROM tasks WHERE tenant_id = $1 FOR UPDATE", [tenant.tenantId]);
      const both = [answer(tenant, id, { plugin: "echo" }), answer(tenant, id, { plugin: "asker" })];
      const waiting = async () =>
        (await still.db.call("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%answer_task%'", [])).length;
      await expect.poll(waiting, { timeout: 5_000 }).toBe(2);
      await admin.query("COMMIT");
      const answers = await Promise.all(both);
      const [winner, loser] = answers.sort((a, b) => a.status - b.status);
      expect(answers.map(({ status }) => status)).toEqual([202, 409]);
      if (loser) expectRefusal(loser, "CONFLICT");
      expect((await read(tenant, id)).plugin).toBe(winner?.body.plugin);
      expect(await reservedBy(still, tenant)).toEqual([{ plugin_name: winner?.body.plugin, used: 0, reserved: 1 }]);
    } finally {
      await admin.end();
    }
  });

  it("may come twice, at once or later, and is one task with one reservation", async () => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => answer(tenant, id, i % 2 ? { plugin: "echo" } : { answer: "1" })));
    answers.push(await answer(tenant, id, { plugin: "echo" }));
    expect(answers.map(({ status, body }) => [status, body.task_id, body.status])).toEqual(answers.map(() => [202, id, "queued"]));
    expect(await reservedBy(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 1 }]);
    expect((await eventsOf(still, tenant)).map(({ type }) => type)).toEqual(["needs_input", "answered"]);
  });

  it("shows the result to whoever gives it again after the task has ended", async () => {
    const tenant = await running.tenant();
    const id = await idOf(tenant);
    const first = await answer(tenant, id, { plugin: "echo" }, { prefer: "wait=20" });
    const again = await answer(tenant, id, { plugin: "echo" });
    expect([again.status, again.body]).toEqual([200, first.body]);
    expectRefusal(await answer(tenant, id, { plugin: "asker" }), "CONFLICT");
  });

  it("needs a subscription and what is left of its quota, and changes nothing without", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 1 } });
    await useUpSandbox(still, tenant, "asker");
    const [one, other] = [await idOf(tenant), await idOf(tenant)];
    expect((await answer(tenant, one, { plugin: "echo" })).status).toBe(202);
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      expect(expectRefusal(await answer(tenant, other, { plugin: "asker" }), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({
        plugin: "asker",
        upgrade_url: expect.stringMatching(/^https:/),
      });
      expect(expectRefusal(await answer(tenant, other, { plugin: "echo" }), "QUOTA_EXCEEDED")).toMatchObject({ plugin: "echo", quota_limit: 1 });
    });
    expect((await read(tenant, other)).status).toBe("pending");
    await tenant.api("DELETE", `/v1/tasks/${one}`);
    expect((await answer(tenant, other, { plugin: "echo" })).status).toBe(202);
    expect(await quotaOf(still, tenant)).toEqual({ echo: [0, 1] });
  });

  it("is refused where there is no question: 404 for ids of others, 409 for a task that never asked", async () => {
    const [tenant, stranger] = [await still.tenant(), await still.tenant()];
    const [id, reader] = [await idOf(tenant), await tenant.mintKey({ scopes: ["tasks:read"] })];
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      expectRefusal(await answer(stranger, id, { plugin: "echo" }), "NOT_FOUND");
      expectRefusal(await answer(tenant, "task_01jd0000000000000000000000", { plugin: "echo" }), "NOT_FOUND");
      expectRefusal(await still.call("POST", `/v1/tasks/${id}/input`, { key: reader.key, body: { plugin: "echo" } }), "FORBIDDEN_SCOPE");
    });
    const queued = await submit(tenant, { plugin: "echo" });
    expectRefusal(await answer(tenant, queued.body.task_id, { plugin: "echo" }), "CONFLICT");
  });
});

describe("a candidate that takes several steps", () => {
  /** Nearly every command is unsure; what is clear beyond that goes its own way. */
  const REVIEW = "Review this change and put the results into a report for the board";
  const named = (name: string, capabilities: string[], dependencies: { name: string; version: string }[] = []) => ({
    ...echo,
    name,
    manifest: { ...echo.manifest, name, capabilities, dependencies },
  });
  let own: TestPlatform;
  beforeAll(async () => {
    own = await startTestPlatform({ plugins: [echo], env: { CHAIN_THRESHOLD: "0.97" }, withBridge: false });
    const reviewer = named("reviewer", ["Review a change or a pull request.", "Find bugs in a change."]);
    const reporter = named("reporter", ["Write a report for the management.", "Make minutes of a meeting."], [{ name: "reader", version: "^1.0.0" }]);
    for (const plugin of [reviewer, reporter, named("reader", ["Read a book aloud."])]) await own.register(plugin, "http://127.0.0.1:1");
  });
  afterAll(() => own?.stop());
  const all = { reviewer: null, reporter: null, reader: null };
  const asked = async (tenant: TestTenant) => (await submit(tenant, { command: REVIEW })).body;
  const planOf = async (tenant: TestTenant) =>
    (await own.db.call<{ plan: unknown[]; plugin_name: string }>("SELECT plan, plugin_name FROM tasks WHERE tenant_id = $1", [tenant.tenantId]))[0];

  it("is offered with all that it takes: each part of the command to its plugin, or one plugin and what it builds on", async () => {
    const tenant = await own.tenant({ subscriptions: { reviewer: null, reporter: null } });
    const { input_request: offered, status } = await asked(tenant);
    expect(status).toBe("pending");
    expect(offered.question).toBe("This seems to ask for several things. Should reviewer and reporter each do a part of it, or one plugin all: reviewer or reporter?");
    expect(offered.candidates).toMatchObject([
      { plugin: null, plugins: ["reviewer", "reader", "reporter"], parts: ["reviewer", "reporter"], subscribed: false },
      { plugin: "reviewer", plugins: ["reviewer"], subscribed: true },
      { plugin: "reporter", plugins: ["reader", "reporter"], subscribed: false },
    ]);
    expect(JSON.stringify(offered)).not.toMatch(/board|put the results/);
    const dry = await tenant.api("POST", "/v1/tasks?dry_run=true", { command: REVIEW });
    expect(dry.body.input_request).toEqual({ question: offered.question, candidates: offered.candidates });
  });

  it.each<[string, unknown]>([
    ["its number", { candidate: 1 }],
    ["its number in words", { answer: "the first one" }],
    ["a word for it", { answer: "Both, please" }],
    ["the names of its plugins", { answer: "reviewer and reporter" }],
  ])("runs as a plan when it is chosen by %s, with one execution reserved for every step", async (_, body) => {
    const tenant = await own.tenant({ subscriptions: all });
    const { task_id: id } = await asked(tenant);
    const answers = await Promise.all([answer(tenant, id, body), answer(tenant, id, body)]);
    for (const answered of answers) expect([answered.status, answered.body]).toMatchObject([202, { status: "queued", plugin: "reviewer", routing: { method: "clarified" } }]);
    expect(await planOf(tenant)).toMatchObject({
      plugin_name: "reviewer",
      plan: [
        { id: "reviewer", plugin: "reviewer", version: "1.0.0", needs: [], command: "Review this change" },
        { id: "reader", plugin: "reader", needs: [] },
        { id: "reporter", plugin: "reporter", needs: ["reviewer", "reader"], command: "put the results into a report for the board" },
      ],
    });
    expect(await reservedBy(own, tenant)).toEqual(["reader", "reporter", "reviewer"].map((plugin_name) => ({ plugin_name, used: 0, reserved: 1 })));
    expectRefusal(await answer(tenant, id, { plugin: "reviewer" }), "CONFLICT");
  });

  it("is a plugin with what it builds on", async () => {
    const tenant = await own.tenant({ subscriptions: all });
    const { task_id: id } = await asked(tenant);
    expect((await answer(tenant, id, { plugin: "reporter" })).status).toBe(202);
    expect(await planOf(tenant)).toMatchObject({ plugin_name: "reporter", plan: [{ plugin: "reader" }, { id: "main", plugin: "reporter", needs: ["reader"] }] });
  });

  it("reserves all or nothing, and says which plugin is missing", async () => {
    const tenant = await own.tenant({ subscriptions: { reviewer: null, reporter: 1, reader: 0 } });
    const { task_id: id } = await asked(tenant);
    const lacking = await own.tenant({ subscriptions: { reviewer: null, reader: null } });
    await useUpSandbox(own, lacking, "reporter");
    const { task_id: other } = await asked(lacking);
    await expectNothingWritten(own.env.DATABASE_URL ?? "", async () => {
      expect(expectRefusal(await answer(tenant, id, { candidate: 1 }), "QUOTA_EXCEEDED")).toMatchObject({ plugin: "reader", quota_limit: 0 });
      expect(expectRefusal(await answer(lacking, other, { candidate: 1 }), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: "reporter" });
    });
    expect(await reservedBy(own, tenant)).toEqual([]);
    expect((await answer(tenant, id, { plugin: "reviewer" })).status).toBe(202);
  });

  it("is not offered to a tier that does not chain, and refused where a plugin builds on another", async () => {
    const tenant = await own.tenant({ tier: "starter", subscriptions: all });
    const { task_id: id, input_request: offered } = await asked(tenant);
    expect(offered.candidates.map(({ plugin }: { plugin: string }) => plugin)).toEqual(["reviewer", "reporter"]);
    await expectNothingWritten(own.env.DATABASE_URL ?? "", async () => {
      expect(expectRefusal(await answer(tenant, id, { plugin: "reporter" }), "CHAINING_NOT_INCLUDED")).toMatchObject({ plugins: ["reader", "reporter"] });
      expectRefusal(await answer(tenant, id, { answer: "both" }), "INVALID_INPUT");
    });
  });
});

describe("a question that nobody answers", () => {
  it("can be cancelled, and then takes no answer", async () => {
    const tenant = await still.tenant();
    const id = await idOf(tenant);
    expect((await tenant.api("DELETE", `/v1/tasks/${id}`)).body).toEqual({ task_id: id, status: "cancelled" });
    expectRefusal(await answer(tenant, id, { plugin: "echo" }), "CONFLICT");
    expect(await read(tenant, id)).toMatchObject({ status: "cancelled", input_request: null });
    expect(await reservedBy(still, tenant)).toEqual(unreserved);
  });

  it("ends as failed with a clear error when its time is over, and refuses an answer from then on", async () => {
    const [tenant, other] = [await still.tenant(), await still.tenant()];
    const [id, kept] = [await idOf(tenant), await idOf(other)];
    await still.db.call("UPDATE tasks SET deadline = now() - interval '1 second' WHERE tenant_id = $1", [tenant.tenantId]);
    expectRefusal(await answer(tenant, id, { plugin: "echo" }), "INPUT_TIMEOUT");
    expect((await read(tenant, id)).status).toBe("pending");
    await Promise.all([still.runCron("wake"), still.runCron("wake")]);
    expect(await read(tenant, id)).toMatchObject({
      status: "failed",
      error: { code: "INPUT_TIMEOUT", cause: "caller" },
      input_request: null,
      execution_meta: { attempts: 0, cost_estimate_usd: "0.000000" },
    });
    expect((await read(other, kept)).status).toBe("pending");
    expectRefusal(await answer(tenant, id, { plugin: "echo" }), "CONFLICT");
    expect((await eventsOf(still, tenant)).map(({ type }) => type)).toEqual(["needs_input", "finished"]);
    expect(await reservedBy(still, tenant)).toEqual(unreserved);
  });

  it("stands until the deadline that its caller named, and so does its task", async () => {
    const tenant = await still.tenant();
    const deadline = new Date(Date.now() + 1_800_000).toISOString();
    const id = await idOf(tenant, { deadline });
    expect((await read(tenant, id)).input_request.answer_by).toBe(deadline);
    await answer(tenant, id, { plugin: "echo" });
    const [row] = await still.db.call<{ deadline: Date }>("SELECT deadline FROM tasks WHERE tenant_id = $1", [tenant.tenantId]);
    expect(row?.deadline.toISOString()).toBe(deadline);
  });
});
