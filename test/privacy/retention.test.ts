import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { newId, parseId, publicId, type TaskId } from "../../shared/ids.ts";
import { filer } from "../batteries/plugins.ts";
import { append } from "../conversations/exchange.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { storeOf } from "./places.ts";

const DAY_MS = 86_400_000;

let platform: TestPlatform;
let client: pg.Client;
let tenant: TestTenant;
let store: ReturnType<typeof storeOf>;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer] });
  client = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await client.connect();
  store = storeOf(platform);
});
beforeEach(async () => {
  tenant = await platform.tenant();
  // Tasks of one test may be older than those of the test before.
  await client.query("UPDATE retention_marks SET through = ''");
});
afterAll(async () => {
  store?.close();
  await client?.end();
  await platform?.stop();
});

/** A finished task with all that comes with one, begun so many days ago. */
async function oldTask(days: number, status = "success"): Promise<TaskId> {
  const at = new Date(Date.now() - days * DAY_MS);
  const id = newId("task", at.getTime());
  await client.query(
    `INSERT INTO tasks (id, tenant_id, user_id, environment, plugin_name, plan, status, input, result, routing_method, request_id, deadline, created_at, completed_at)
      VALUES ($1, $2, $3, 'live', 'echo', '[{"id": "main", "plugin": "echo", "version": "1.0.0", "needs": [], "command": "words"}]', $5, '{"command": "words"}', '{"result": "words"}',
        'explicit', 'req_1', $4, $4, $4)`,
    [id, tenant.tenantId, tenant.userId, at, status],
  );
  await client.query(
    "INSERT INTO task_steps (task_id, tenant_id, step, plugin_name, plugin_version, attempt, status, output, latency_ms) VALUES ($1, $2, 'main', 'echo', '1.0.0', 1, 'success', '{\"result\": \"words\"}', 1)",
    [id, tenant.tenantId],
  );
  await client.query("INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES ($1, 1, $2, 'report', '{\"message\": \"words\"}')", [id, tenant.tenantId]);
  await client.query(
    `INSERT INTO llm_calls (id, task_id, tenant_id, step, call_no, plugin_name, request_sha256, occurrence, attempt, state, model, price_version, ceiling_micro_usd, cost_micro_usd, answer)
      VALUES (gen_random_uuid(), $1, $2, 'main', 1, 'echo', 'x', 0, 1, 'done', 'm', '1', 9, 7, '{"text": "words"}')`,
    [id, tenant.tenantId],
  );
  await client.query(
    `INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, status, latency_ms, routing_method, envelope_version, billable, timestamp)
      VALUES ($2, 'echo', '1.0.0', $1, 'main', 1, 'live', 'success', 1, 'explicit', '1.0', true, $3)`,
    [id, tenant.tenantId, at],
  );
  return id;
}

const count = async (table: string, where = "true", values: unknown[] = []) =>
  (await client.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table} WHERE tenant_id = $1 AND ${where}`, [tenant.tenantId, ...values])).rows[0]?.n;
const purge = () => platform.runCron("retention-purge");

describe("retention", () => {
  it("empties tasks after 90 days, keeps what they cost for 13 months, and then deletes them", async () => {
    const [fresh, old, ancient] = [await oldTask(89), await oldTask(91), await oldTask(400)];
    await purge();
    expect((await client.query("SELECT id, input IS NULL AND result IS NULL AS emptied, user_id FROM tasks WHERE tenant_id = $1 ORDER BY id", [tenant.tenantId])).rows).toEqual([
      { id: old, emptied: true, user_id: tenant.userId },
      { id: fresh, emptied: false, user_id: tenant.userId },
    ]);
    expect((await client.query("SELECT plan FROM tasks WHERE id = $1", [old])).rows[0]?.plan).toEqual([{ id: "main", plugin: "echo", version: "1.0.0", needs: [] }]);
    expect(await count("task_events", "task_id = $2", [old])).toBe(0);
    expect((await client.query("SELECT answer, cost_micro_usd FROM llm_calls WHERE task_id = $1", [old])).rows).toEqual([{ answer: null, cost_micro_usd: "7" }]);
    expect(await count("execution_events")).toBe(2);
    for (const table of ["task_steps", "llm_calls", "execution_events"]) expect(await count(table, "task_id = $2", [ancient]), table).toBe(0);
    expect((await tenant.api("GET", `/v1/tasks/${publicId("task", old)}`)).body).toMatchObject({ status: "success", result: null });
  });

  it("deletes files after the days that the tenant keeps them, the object before its row", async () => {
    await client.query('UPDATE tenants SET settings = settings || \'{"retention": {"artifact_days": 30}}\' WHERE id = $1', [tenant.tenantId]);
    const days = [29, 31];
    const kept: string[] = [];
    for (const age of days) {
      const { body } = await tenant.api("POST", "/v1/tasks", { command: "a file", plugin: "filer" }, { prefer: "wait=20" });
      const { rows } = await client.query("UPDATE artifacts SET created_at = now() - $2 * interval '1 day' WHERE task_id = $1 RETURNING storage_key", [
        parseId("task", body.task_id),
        age,
      ]);
      if (age < 30) kept.push(rows[0]?.storage_key);
    }
    await purge();
    expect((await store.list(`${tenant.tenantId}/`, null)).map(({ key }) => key)).toEqual(kept);
    expect(await count("artifacts")).toBe(1);
  });

  it("sweeps objects that no row names, not the young ones, and nothing else of the bucket", async () => {
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "a file", plugin: "filer" }, { prefer: "wait=20" });
    const task = parseId("task", body.task_id);
    const orphan = `${tenant.tenantId}/filer/${task}/orphan.txt`;
    await store.put(orphan, Buffer.from("x"), "text/plain");
    await store.put("erasures/note", Buffer.from("x"), "text/plain");
    const { sweepOrphans } = await import("../../shared/privacy/retention.ts");
    const sweep = async (now: Date) => {
      while ((await sweepOrphans({ db: platform.db, storage: store }, now)) !== null);
    };
    await sweep(new Date());
    expect(await store.get(orphan)).not.toBeNull();
    await sweep(new Date(Date.now() + 2 * DAY_MS));
    expect((await store.list(`${tenant.tenantId}/`, null)).map(({ key }) => key)).toEqual([`${tenant.tenantId}/filer/${task}/report.txt`]);
    expect(await store.get("erasures/note")).not.toBeNull();
  });

  it("forgets idempotency keys after a day", async () => {
    for (const hours of [23, 25])
      await client.query(
        "INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id, created_at) VALUES ($1, 'live', 'task-submit', $2, 'x', gen_random_uuid(), now() - $3 * interval '1 hour')",
        [tenant.tenantId, `after-${hours}`, hours],
      );
    await purge();
    expect((await client.query("SELECT key FROM idempotency_keys WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([{ key: "after-23" }]);
  });

  it("forgets what webhooks were told after a month", async () => {
    await client.query(
      "INSERT INTO webhooks (id, tenant_id, url, events, secret, secret_key_id) VALUES (gen_random_uuid(), $1, 'https://hooks.aau.io/', '{quota.warning}', '', 'k1')",
      [tenant.tenantId],
    );
    for (const key of ["old", "new"]) await client.query("SELECT enqueue_webhook_event($1, 'quota.warning', $2, '{}')", [tenant.tenantId, key]);
    await client.query("UPDATE webhook_deliveries SET created_at = now() - interval '31 days' WHERE tenant_id = $1 AND event_key = 'old'", [tenant.tenantId]);
    await purge();
    expect((await client.query("SELECT event_key FROM webhook_deliveries WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([{ event_key: "new" }]);
  });

  it("keeps bills for seven years, then deletes an invoice with its lines and the usage on it", async () => {
    for (const [number, years] of [
      [1, 8],
      [2, 6],
    ]) {
      const { rows } = await client.query<{ id: string }>(
        `INSERT INTO invoices (id, tenant_id, number, period_start, period_end, tenant_name, plan_tier, price_version, prices, total_micro_usd, closed_at)
          VALUES (gen_random_uuid(), $1, $2, now() - $3 * interval '1 year', now(), 'x', 'starter', 'x', '{}', 0, now() - $3 * interval '1 year') RETURNING id`,
        [tenant.tenantId, number, years],
      );
      const invoice = rows[0]?.id;
      await client.query(
        `INSERT INTO invoice_lines (invoice_id, position, tenant_id, kind, origin, description, quantity, unit, amount_micro_usd, price_version)
          VALUES ($1, 1, $2, 'plan_fee', now(), 'x', 1, 'month', 0, 'x')`,
        [invoice, tenant.tenantId],
      );
      for (const environment of ["live", "test"])
        await client.query(
          "INSERT INTO usage_days (tenant_id, day, plugin_name, environment, plan_tier, invoice_id) VALUES ($1, now() - $2 * interval '1 year', 'echo', $3, 'starter', $4)",
          [tenant.tenantId, years, environment, environment === "live" ? invoice : null],
        );
    }
    await purge();
    expect((await client.query("SELECT number FROM invoices WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([{ number: 2 }]);
    expect(await count("invoice_lines")).toBe(1);
    expect((await client.query("SELECT environment FROM usage_days WHERE tenant_id = $1 AND day < now() - interval '1 year' ORDER BY 1", [tenant.tenantId])).rows).toEqual([
      { environment: "live" },
      { environment: "test" },
    ]);
  });

  it("lets old turns of a conversation go and the later ones be read as before, and ends those of which none is left", async () => {
    const { tenantId, userId } = tenant;
    for (const name of ["goes-on", "ended"]) for (const command of ["old", "new"]) await append(platform.db, { tenantId, userId, name, command, result: command });
    await client.query(
      "UPDATE messages SET created_at = now() - interval '91 days' WHERE tenant_id = $1 AND (content = 'old' OR conversation_id IN (SELECT id FROM conversations WHERE name = 'ended'))",
      [tenantId],
    );
    await purge();
    const { rows } = await client.query("SELECT id, name, last_seq - summarised_through AS open, open_chars FROM conversations WHERE tenant_id = $1", [tenantId]);
    expect(rows).toMatchObject([{ name: "goes-on", open: "2", open_chars: "6" }]);
    const read = await client.query("SELECT turns FROM read_conversation($1, $2)", [tenantId, rows[0]?.id]);
    expect(read.rows[0]?.turns).toEqual([
      { role: "user", content: "new" },
      { role: "assistant", content: "new" },
    ]);
  });

  it("takes everything away once, however many run at once, and finds nothing the next time", async () => {
    for (let n = 0; n < 450; n++) await oldTask(n % 2 === 0 ? 100 : 500);
    await Promise.all(Array.from({ length: 4 }, purge));
    await purge();
    expect(await count("tasks")).toBe(225);
    expect(await count("tasks", "input IS NOT NULL")).toBe(0);
    const before = (await client.query("SELECT xmin::text FROM tasks WHERE tenant_id = $1 ORDER BY id", [tenant.tenantId])).rows;
    await purge();
    expect((await client.query("SELECT xmin::text FROM tasks WHERE tenant_id = $1 ORDER BY id", [tenant.tenantId])).rows).toEqual(before);
  });

  it("finds what is due by an index in tables of any size", async () => {
    await client.query("SET enable_seqscan = on");
    await client.query(
      `INSERT INTO tasks (id, tenant_id, environment, plan, status, routing_method, request_id, deadline, created_at)
        SELECT first_id_at(now() - n * interval '1 minute'), $1, 'live', '[]', 'success', 'explicit', 'req', now(), now() - n * interval '1 minute' FROM generate_series(1, 50000) n`,
      [tenant.tenantId],
    );
    await client.query("ANALYZE");
    const plans = [
      "SELECT id FROM tasks WHERE id > '00000000-0000-0000-0000-000000000000' AND id < first_id_at(now() - interval '90 days') ORDER BY id LIMIT 200",
      "SELECT t.id FROM tasks t WHERE t.id < first_id_at(now() - interval '13 months') AND NOT EXISTS (SELECT FROM artifacts a WHERE a.task_id = t.id) ORDER BY t.id LIMIT 200",
      `SELECT t.id FROM tasks t WHERE t.tenant_id = '${tenant.tenantId}' AND t.id > '00000000-0000-0000-0000-000000000000' ORDER BY t.id LIMIT 5000`,
      "SELECT 1 FROM task_steps WHERE task_id = ANY (ARRAY[gen_random_uuid()])",
    ];
    for (const text of plans) {
      const { rows } = await client.query<{ "QUERY PLAN": string }>(`EXPLAIN ${text}`);
      expect(rows.map((row) => row["QUERY PLAN"]).join("\n"), text).not.toMatch(/Seq Scan on tasks/);
    }
  });
});
