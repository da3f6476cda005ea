import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseId } from "../../shared/ids.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { quotaOf } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

/** A hundred of them take their time. */
const ROUNDS = Number(process.env.AAU_QUOTA_ROUNDS ?? 3);

/** One platform whose tasks stay queued, and one that runs them. */
let still: TestPlatform;
let running: TestPlatform;
beforeAll(async () => {
  [still, running] = await Promise.all([startTestPlatform({ plugins: [echo], withBridge: false, env: { DATABASE_WAIT_MS: "60000" } }), startTestPlatform({ plugins: [echo] })]);
});
afterAll(() => Promise.all([still?.stop(), running?.stop()]));

const submit = (tenant: TestTenant, headers: Record<string, string> = {}) => tenant.api("POST", "/v1/tasks", { command: "say it", plugin: "echo" }, headers);
const tasksOf = async ({ tenantId }: TestTenant) => Number((await still.db.call<{ n: string }>("SELECT count(*) AS n FROM tasks WHERE tenant_id = $1", [tenantId]))[0]?.n);
const allowOverage = (platform: TestPlatform, { tenantId }: TestTenant) => platform.db.call("UPDATE subscriptions SET overage_enabled = true WHERE tenant_id = $1", [tenantId]);

describe("a quota of ten", () => {
  it("admits ten of two hundred that come at once, each time; and all reservations come back", { timeout: 240_000 }, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const tenant = await still.tenant({ subscriptions: { echo: 10 } });
      const answers = await Promise.all(Array.from({ length: 200 }, () => submit(tenant)));
      expect(answers.filter(({ status }) => status === 202)).toHaveLength(10);
      expect(answers.filter(({ status }) => status === 429)).toHaveLength(190);
      expect([await tasksOf(tenant), await quotaOf(still, tenant)]).toEqual([10, { echo: [0, 10] }]);
      const admitted = answers.filter(({ status }) => status === 202);
      await Promise.all(admitted.map(({ body }) => tenant.api("DELETE", `/v1/tasks/${body.task_id}`)));
      expect(await quotaOf(still, tenant)).toEqual({ echo: [0, 0] });
    }
  });

  it("loses nothing to connections that die in the middle of an admission", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 10 } });
    const kill = () =>
      still.db.call(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'SELECT * FROM admit_tasks%' AND state = 'active'",
        [],
      );
    const answers = await Promise.all([
      ...Array.from({ length: 60 }, () => submit(tenant)),
      ...Array.from({ length: 20 }, async (_, n) => {
        await new Promise((resolve) => setTimeout(resolve, 3 * n));
        await kill();
        return null;
      }),
    ]);
    const statuses = answers.flatMap((answer) => (answer ? [answer.status] : []));
    expect(
      statuses.every((status) => [202, 429, 503].includes(status)),
      statuses.join(),
    ).toBe(true);
    // Whatever was lost on the way: as many are reserved as there are tasks, and never more than ten.
    for (let i = 0; i < 12; i++) await submit(tenant);
    expect([await tasksOf(tenant), await quotaOf(still, tenant)]).toEqual([10, { echo: [0, 10] }]);
  });
});

describe("a reservation whose executor died", () => {
  /** Claims as an executor does, pays for a model call, and is never heard of again. */
  async function claimAndDie(tenant: TestTenant, taskId: string): Promise<string> {
    const id = parseId("task", taskId) ?? "";
    const [claim] = await still.db.call<{ lease_token: string }>("SELECT lease_token FROM claim_tasks($1, 1000, 3)", [[id]]);
    await still.db.call("SELECT * FROM open_llm_call($1, $2, $3, 'main', 'echo', NULL, gen_random_uuid(), $4, 1, 'claude-haiku-4-5', 'v', 5000, 15000)", [
      tenant.tenantId,
      id,
      claim?.lease_token,
      "0".repeat(64),
    ]);
    await still.db.call("UPDATE llm_calls SET state = 'done', cost_micro_usd = 321, input_tokens = 10, usage = '{}' WHERE task_id = $1", [id]);
    await still.db.call("SELECT * FROM open_llm_call($1, $2, $3, 'main', 'echo', NULL, gen_random_uuid(), $4, 1, 'claude-haiku-4-5', 'v', 5000, 15000)", [
      tenant.tenantId,
      id,
      claim?.lease_token,
      "1".repeat(64),
    ]);
    return id;
  }

  it("comes back when the task is swept at its deadline; what it paid is known, and billed to nobody", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 1 } });
    const { body } = await submit(tenant);
    const id = await claimAndDie(tenant, body.task_id);
    expectRefusal(await submit(tenant), "QUOTA_EXCEEDED");
    await still.db.call("UPDATE tasks SET deadline = now() - interval '1 second', lease_until = now() - interval '1 second' WHERE id = $1", [id]);
    // The bridge would deliver what `wake` rings for; the claim is what ends it.
    expect(await still.db.call("SELECT outcome FROM claim_tasks($1, 1000, 3)", [[id]])).toEqual([{ outcome: "ended" }]);
    expect(await quotaOf(still, tenant)).toEqual({ echo: [0, 0] });
    expect((await submit(tenant)).status).toBe(202);
    const usage = await still.db.call("SELECT executions, billable, cost_micro_usd, unbilled_micro_usd, unknown_calls, unknown_micro_usd FROM usage_days WHERE tenant_id = $1", [
      tenant.tenantId,
    ]);
    expect(usage).toEqual([{ executions: 1, billable: 0, cost_micro_usd: "0", unbilled_micro_usd: "321", unknown_calls: 1, unknown_micro_usd: "5000" }]);
  });
});

describe("overage", () => {
  it("is what was used beyond the quota, not what was admitted beyond it", async () => {
    const tenant = await running.tenant({ subscriptions: { echo: 2 } });
    await allowOverage(running, tenant);
    for (let i = 0; i < 3; i++) expect((await submit(tenant, { prefer: "wait=20" })).body.status).toBe("success");
    const { body } = await tenant.api("GET", "/v1/usage?group_by=plugin,day");
    expect(body.usage).toMatchObject([{ plugin: "echo", day: new Date().toISOString().slice(0, 10), executions: 3, billable: 3, overage: 1 }]);
    expect(body.quotas).toMatchObject([{ plugin: "echo", used: 3, reserved: 0, limit: 2, remaining: 0, overage_enabled: true }]);

    const queued = await still.tenant({ subscriptions: { echo: 1 } });
    await allowOverage(still, queued);
    const [first, second] = [await submit(queued), await submit(queued)];
    await queued.api("DELETE", `/v1/tasks/${first.body.task_id}`);
    const id = parseId("task", second.body.task_id);
    const [task] = await still.db.call("SELECT overage FROM tasks WHERE id = $1", [id]);
    expect(task).toEqual({ overage: true });
    const [claim] = await still.db.call<{ lease_token: string }>("SELECT lease_token FROM claim_tasks($1, 60000, 3)", [[id]]);
    const step = { step: "main", plugin_name: "echo", plugin_version: "1.0.0", attempt: 1, status: "success", output: {}, latency_ms: 1 };
    const end = { place: 0, id, tenant: queued.tenantId, lease: claim?.lease_token, status: "success", result: null, error: null, steps: [step], events: [] };
    await still.db.call("SELECT * FROM settle_tasks($1)", [JSON.stringify([end])]);
    expect(await still.db.call("SELECT billable, overage FROM execution_events WHERE tenant_id = $1", [queued.tenantId])).toEqual([{ billable: true, overage: false }]);
  });
});

describe("a tenant is warned", () => {
  /** What its endpoints will be told, of one endpoint that listens. */
  async function listening(): Promise<{ tenant: TestTenant; warnings(): Promise<unknown[]> }> {
    const tenant = await still.tenant({ subscriptions: { echo: 10 } });
    await still.db.platform((tx) =>
      sql`INSERT INTO webhooks (id, tenant_id, url, events, secret, secret_key_id) VALUES (gen_random_uuid(), ${tenant.tenantId}, 'https://example.com/hook', '{quota.warning}', '', 'k1')`.execute(
        tx,
      ),
    );
    return {
      tenant,
      warnings: async () =>
        (
          await still.db.call<{ data: unknown }>(
            "SELECT data FROM webhook_deliveries WHERE tenant_id = $1 AND type = 'quota.warning' ORDER BY (data->>'limit')::int, (data->>'percent')::int",
            [tenant.tenantId],
          )
        ).map(({ data }) => data),
    };
  }
  const warning = (percent: number, reserved: number, limit = 10) => ({
    plugin: "echo",
    period_start: `${new Date().toISOString().slice(0, 7)}-01`,
    percent,
    used: 0,
    reserved,
    limit,
  });
  const setQuota = ({ tenantId }: TestTenant, limit: number) => still.db.call("UPDATE subscriptions SET quota_limit = $2 WHERE tenant_id = $1", [tenantId, limit]);

  it("at 80 and at 100 percent of a quota, once each in a month, however often it is reached", async () => {
    const { tenant, warnings } = await listening();
    const ids: string[] = [];
    for (let i = 0; i < 7; i++) ids.push((await submit(tenant)).body.task_id);
    expect(await warnings()).toEqual([]);
    ids.push((await submit(tenant)).body.task_id);
    expect(await warnings()).toEqual([warning(80, 8)]);
    await tenant.api("DELETE", `/v1/tasks/${ids[0]}`);
    await Promise.all([1, 2, 3].map(() => submit(tenant)));
    expect(await warnings()).toEqual([warning(80, 8), warning(100, 10)]);
    await tenant.api("DELETE", `/v1/tasks/${ids[1]}`);
    expect((await submit(tenant)).status).toBe(202);
    expectRefusal(await submit(tenant), "QUOTA_EXCEEDED");
    expect(await warnings()).toHaveLength(2);
  });

  it("anew of a quota that has changed in the month, by whichever way executions are reserved, and once of each limit", async () => {
    const { tenant, warnings } = await listening();
    const submits = async (count: number) => {
      for (let i = 0; i < count; i++) expect((await submit(tenant)).status).toBe(202);
    };
    await submits(10);
    const first = [warning(80, 8), warning(100, 10)];
    expect(await warnings()).toEqual(first);
    await setQuota(tenant, 20);
    await submits(5);
    expect(await warnings()).toEqual(first);
    await submits(5);
    const second = [warning(80, 16, 20), warning(100, 20, 20)];
    expect(await warnings()).toEqual([...first, ...second]);
    await setQuota(tenant, 30);
    const plan = Array.from({ length: 5 }, (_, n) => ({ id: `s${n}`, plugin: "echo" }));
    expect((await tenant.api("POST", "/v1/tasks", { command: "x", plan })).status).toBe(202);
    expect(await warnings()).toEqual([...first, ...second, warning(80, 25, 30)]);
    await setQuota(tenant, 20);
    await allowOverage(still, tenant);
    await submits(1);
    expect(await warnings()).toHaveLength(5);
  });

  it("by whichever way executions are reserved, and not for test keys", async () => {
    const { tenant, warnings } = await listening();
    const test = await tenant.mintKey({ environment: "test" });
    for (let i = 0; i < 9; i++) await still.call("POST", "/v1/tasks", { key: test.key, body: { command: "x", plugin: "echo" } });
    expect(await warnings()).toEqual([]);
    const plan = Array.from({ length: 10 }, (_, n) => ({ id: `s${n}`, plugin: "echo" }));
    expect((await tenant.api("POST", "/v1/tasks", { command: "x", plan })).status).toBe(202);
    expect(await warnings()).toEqual([warning(80, 10), warning(100, 10)]);
  });
});
