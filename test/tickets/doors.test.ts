/** The tickets' doors of the scope gateway, called as a plugin calls them, and the tables behind them. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { capabilitySigner } from "../../shared/access/capability-token.ts";
import { newId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ withBridge: false });
});
afterAll(() => platform?.stop());

type Scope = "tickets:read" | "tickets:write" | "store:write";

/** A task of the tenant that runs under a lease, and the calls of its plugin. */
async function runningTask(tenant: TestTenant, scopes: Scope[] = ["tickets:read", "tickets:write"]) {
  const [task, lease] = [newId("task"), randomUUID()];
  await platform.db.platform((tx) =>
    sql`INSERT INTO tasks (id, tenant_id, environment, plugin_name, plan, status, routing_method, attempt, lease_token, lease_until, deadline, request_id)
      VALUES (${task}, ${tenant.tenantId}, 'live', 'echo', '[]', 'running', 'explicit', 1, ${lease}, now() + interval '1 hour', now() + interval '1 hour', 'req_test')`.execute(tx),
  );
  const claims = {
    aud: "scoped",
    tenant: tenant.tenantId,
    task,
    attempt: 1,
    step: "main",
    plugin: "echo",
    version: "1.0.0",
    scopes,
    token_budget: 1,
    lease,
    exp: Date.now() + 60_000,
  } as const;
  const token = capabilitySigner(platform.env.CAPABILITY_KEY ?? "").mint({ ...claims, scopes });
  return {
    async call(method: string, path: string, body?: unknown) {
      const answer = await fetch(`${platform.internalUrl}/internal/scoped/${path}`, {
        method,
        headers: { authorization: `Bearer ${token}` },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
      return { status: answer.status, body: (await answer.json()) as any };
    },
    end: () => platform.db.platform((tx) => sql`UPDATE tasks SET status = 'success' WHERE id = ${task}`.execute(tx)),
  };
}

const hex = (digit: string) => digit.repeat(64);
const ticket = (over: Record<string, unknown> = {}) => ({ fingerprint: hex("a"), title: "The export hangs", type: "bug", priority: "high", ...over });
const listed = (filter: unknown) => `tickets?filter=${encodeURIComponent(JSON.stringify(filter))}`;

describe("a plugin", () => {
  it("that does not declare the scope may do nothing with tickets", async () => {
    const tenant = await platform.tenant();
    const writer = await runningTask(tenant, ["tickets:write"]);
    const reader = await runningTask(tenant, ["tickets:read"]);
    const other = await runningTask(tenant, ["store:write"]);
    expect(await writer.call("POST", "tickets", { tickets: [ticket()] })).toMatchObject({ status: 200 });
    for (const [task, method, path, body] of [
      [reader, "POST", "tickets", { tickets: [ticket()] }],
      [reader, "PATCH", "tickets/T-1", { status: "closed" }],
      [writer, "GET", "tickets", undefined],
      [writer, "GET", "tickets/T-1", undefined],
      [other, "GET", "tickets", undefined],
    ] as const)
      expect(await task.call(method, path, body), `${method} ${path}`).toMatchObject({ status: 403, body: { error: { code: "FORBIDDEN_SCOPE" } } });
  });

  it("whose task is over may do nothing any more", async () => {
    const tenant = await platform.tenant();
    const task = await runningTask(tenant);
    await task.call("POST", "tickets", { tickets: [ticket()] });
    await task.end();
    expect(await task.call("POST", "tickets", { tickets: [ticket({ fingerprint: hex("b") })] })).toMatchObject({ status: 409 });
    expect(await task.call("PATCH", "tickets/T-1", { status: "closed" })).toMatchObject({ status: 409 });
    expect(await task.call("GET", "tickets")).toMatchObject({ status: 409 });
    expect(await (await runningTask(tenant)).call("GET", "tickets")).toMatchObject({ body: { total: 1, tickets: [{ id: "T-1", status: "open" }] } });
  });

  it("of another tenant finds nothing", async () => {
    const [own, foreign] = [await runningTask(await platform.tenant()), await runningTask(await platform.tenant())];
    await own.call("POST", "tickets", { tickets: [ticket()] });
    expect(await foreign.call("GET", "tickets")).toMatchObject({ status: 200, body: { total: 0 } });
    expect(await foreign.call("GET", "tickets/T-1")).toMatchObject({ status: 404 });
    expect(await foreign.call("PATCH", "tickets/T-1", { status: "closed" })).toMatchObject({ status: 404 });
    expect(await own.call("GET", "tickets/T-1")).toMatchObject({ body: { status: "open" } });
  });
});

describe("the list", () => {
  it("is filtered by what is asked, and says how many there are", async () => {
    const task = await runningTask(await platform.tenant());
    const past = new Date(Date.now() - 1000).toISOString();
    await task.call("POST", "tickets", {
      tickets: [
        ticket({ assignee: "Anna", component: "export", sla_due_at: past }),
        ticket({ fingerprint: hex("b"), title: "100% of _underscores_", priority: "low", team: "blue" }),
        ticket({ fingerprint: hex("c"), title: "Something else", type: "task" }),
      ],
    });
    const found = async (filter: unknown) => (await task.call("GET", listed(filter))).body.tickets.map(({ id }: { id: string }) => id);
    expect(await found({})).toEqual(["T-3", "T-2", "T-1"]);
    expect(await found({ assignee: "anna" })).toEqual(["T-1"]);
    expect(await found({ team: "BLUE" })).toEqual(["T-2"]);
    expect(await found({ component: "export" })).toEqual(["T-1"]);
    expect(await found({ text: "0% of _u" })).toEqual(["T-2"]);
    expect(await found({ text: "%" })).toEqual(["T-2"]);
    expect(await found({ unassigned: true })).toEqual(["T-3"]);
    expect(await found({ due_before: new Date().toISOString() })).toEqual(["T-1"]);
    expect(await found({ order: "due" })).toEqual(["T-1", "T-3", "T-2"]);
    expect(await found({ status: ["closed"] })).toEqual([]);
    expect(await task.call("GET", listed({ limit: 1 }))).toMatchObject({ body: { total: 3, tickets: [{ id: "T-3" }] } });
    expect((await task.call("GET", "tickets/T-1")).body).toMatchObject({ sla_breached: true, description: "", history: [{ type: "created" }] });
  });
});

describe("what a plugin sends", () => {
  it.each([
    ["no tickets", { tickets: [] }],
    ["too many", { tickets: Array.from({ length: 201 }, () => ticket()) }],
    ["no title", { tickets: [ticket({ title: "" })] }],
    ["a fingerprint of another shape", { tickets: [ticket({ fingerprint: "x" })] }],
    ["another tenant's id", { tickets: [ticket({ tenant_id: randomUUID() })] }],
    ["a text that PostgreSQL cannot hold", { tickets: [ticket({ title: "a\u0000b" })] }],
    ["a good one and a bad one", { tickets: [ticket(), ticket({ priority: "asap" })] }],
  ])("is refused as a whole when it holds %s", async (_name, body) => {
    const task = await runningTask(await platform.tenant());
    expect(await task.call("POST", "tickets", body)).toMatchObject({ status: 422, body: { error: { code: "INVALID_INPUT" } } });
    expect(await task.call("GET", "tickets")).toMatchObject({ body: { total: 0 } });
  });

  it("in a change or a filter is held to its shape too", async () => {
    const task = await runningTask(await platform.tenant());
    await task.call("POST", "tickets", { tickets: [ticket()] });
    for (const change of [{ number: 7 }, { tenant_id: randomUUID() }, { status: "gone" }, { created_at: "2020-01-01T00:00:00Z" }])
      expect(await task.call("PATCH", "tickets/T-1", change)).toMatchObject({ status: 422 });
    for (const id of ["T-0", "T-999999999", "1", "T-1%20", "T-9999999999"]) expect(await task.call("PATCH", `tickets/${id}`, { status: "closed" })).toMatchObject({ status: 404 });
    expect(await task.call("GET", listed({ status: "open" }))).toMatchObject({ status: 422 });
    expect(await task.call("GET", "tickets?filter=%7B")).toMatchObject({ status: 422 });
  });

  it("as a note is kept once, however often it is sent", async () => {
    const task = await runningTask(await platform.tenant());
    await task.call("POST", "tickets", { tickets: [ticket()] });
    for (let i = 0; i < 3; i += 1) expect(await task.call("PATCH", "tickets/T-1", { note: "seen by the on-call" })).toMatchObject({ body: { outcome: "changed" } });
    expect((await task.call("GET", "tickets/T-1")).body.history.map(({ type }: { type: string }) => type)).toEqual(["created", "noted"]);
  });
});

/** A session of the test's own: within a transaction, PostgreSQL shows what others do only once. */
async function connect() {
  const client = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await client.connect();
  return { client, [Symbol.asyncDispose]: () => client.end() };
}

/** Resolves when so many sessions of the test's database wait for a lock. */
async function waiting(count: number): Promise<void> {
  await using watcher = await connect();
  for (;;) {
    const { rows } = await watcher.client.query("SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'");
    if (rows[0].waiting >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe("changes at once", () => {
  it("are numbered one after the other, and an issue that several file gets one ticket", async () => {
    const tenant = await platform.tenant();
    const tasks = await Promise.all(Array.from({ length: 4 }, () => runningTask(tenant)));
    await tasks[0]?.call("POST", "tickets", { tickets: [ticket({ fingerprint: hex("0") })] });
    // Whoever holds the counter makes all of them meet at the same place.
    await using holder = await connect();
    const { client } = holder;
    await client.query("BEGIN");
    await client.query("SELECT 1 FROM ticket_counters WHERE tenant_id = $1 FOR UPDATE", [tenant.tenantId]);
    const filed = Promise.all(
      tasks.map((task, index) => task.call("POST", "tickets", { tickets: [ticket({ fingerprint: hex("a") }), ticket({ fingerprint: hex(String(index + 1)) })] })),
    );
    await waiting(tasks.length);
    await client.query("COMMIT");
    const answers = await filed;
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    const ids = answers.map(({ body }) => body.tickets.map((one: { ticket: { id: string } }) => one.ticket.id));
    expect(new Set(ids.map(([shared]) => shared))).toEqual(new Set(["T-2"]));
    expect(ids.map(([, own]) => own).sort()).toEqual(["T-3", "T-4", "T-5", "T-6"]);
  });

  it("leave one ticket of an issue open, whoever reopens and files at the same time", async () => {
    const tenant = await platform.tenant();
    const [one, other] = [await runningTask(tenant), await runningTask(tenant)];
    await one.call("POST", "tickets", { tickets: [ticket()] });
    for (let round = 1; round <= 10; round += 1) {
      const { body } = await one.call("GET", listed({ status: ["open"] }));
      await one.call("PATCH", `tickets/${body.tickets[0].id}`, { status: "closed" });
      const answers = await Promise.all([other.call("POST", "tickets", { tickets: [ticket()] }), one.call("PATCH", `tickets/${body.tickets[0].id}`, { status: "open" })]);
      expect(answers.map(({ status }) => status)).toEqual([200, 200]);
      expect((await one.call("GET", listed({ status: ["open"] }))).body.total).toBe(1);
    }
  });
});
