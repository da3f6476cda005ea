import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { waitSecondsOf } from "../../shared/tasks/submission.ts";
import { failer, waiter } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { forgetCircuits } from "../support/circuits.ts";
import { useUpSandbox } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

/** One platform whose tasks stay queued, and one that runs them. */
let still: TestPlatform;
let running: TestPlatform;
beforeAll(async () => {
  [still, running] = await Promise.all([startTestPlatform({ plugins: [echo], withBridge: false }), startTestPlatform({ plugins: [echo, failer, waiter] })]);
});
afterAll(() => Promise.all([still?.stop(), running?.stop()]));

const submit = (tenant: TestTenant, headers: Record<string, string> = {}, body: Record<string, unknown> = { command: "say it", plugin: "echo" }) =>
  tenant.api("POST", "/v1/tasks", body, headers);
const tasksOf = async (platform: TestPlatform, tenant: TestTenant) =>
  (await platform.db.call<{ n: number }>("SELECT count(*)::int AS n FROM tasks WHERE tenant_id = $1", [tenant.tenantId]))[0]?.n;
async function usageOf(platform: TestPlatform, tenant: TestTenant) {
  return platform.db.call<{ plugin_name: string; used: number; reserved: number }>(
    "SELECT plugin_name, used, reserved FROM usage_periods WHERE tenant_id = $1 ORDER BY plugin_name",
    [tenant.tenantId],
  );
}

describe("Idempotency-Key", () => {
  it("gives the same task for the same body, and says so", async () => {
    const tenant = await still.tenant();
    const first = await submit(tenant, { "idempotency-key": "order-1" });
    const again = await submit(tenant, { "idempotency-key": "order-1" });
    expect([first.status, again.status]).toEqual([202, 202]);
    expect(again.body.task_id).toBe(first.body.task_id);
    expect(again.headers.get("location")).toBe(first.headers.get("location"));
    expect([first.headers.get("idempotency-replayed"), again.headers.get("idempotency-replayed")]).toEqual([null, "true"]);
    expect(await tasksOf(still, tenant)).toBe(1);
    expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 1 }]);
  });

  it("refuses another body, and leaves the first task alone", async () => {
    const tenant = await still.tenant();
    const first = await submit(tenant, { "idempotency-key": "order-1" });
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      const said = expectRefusal(await submit(tenant, { "idempotency-key": "order-1" }, { command: "say that", plugin: "echo" }), "INVALID_INPUT");
      expect(said.message).toContain("Idempotency-Key");
    });
    expect((await tenant.api("GET", `/v1/tasks/${first.body.task_id}`)).body.status).toBe("queued");
  });

  it("belongs to the tenant and its environment", async () => {
    const [one, other] = [await still.tenant(), await still.tenant()];
    const sandbox = await one.mintKey({ environment: "test" });
    const ids = [
      (await submit(one, { "idempotency-key": "k" })).body.task_id,
      (await submit(other, { "idempotency-key": "k" })).body.task_id,
      (await still.call("POST", "/v1/tasks", { key: sandbox.key, body: { command: "say it", plugin: "echo" }, headers: { "idempotency-key": "k" } })).body.task_id,
    ];
    expect(new Set(ids).size).toBe(3);
  });

  it("makes one task of 50 submits at once", async () => {
    const tenant = await still.tenant();
    const answers = await Promise.all(Array.from({ length: 50 }, () => submit(tenant, { "idempotency-key": "burst" })));
    expect(new Set(answers.map((answer) => `${answer.status} ${answer.body.task_id}`)).size).toBe(1);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === null)).toHaveLength(1);
    expect(await tasksOf(still, tenant)).toBe(1);
    expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 1 }]);
  });

  it("makes one task of submits that have all looked for the key before the first has written it", async () => {
    const tenant = await still.tenant();
    expect((await submit(tenant)).status).toBe(202);
    const admin = new pg.Client({ connectionString: still.env.DATABASE_URL });
    await admin.connect();
    try {
      // Whoever holds this row holds every admission of the tenant between its look and its write.
      await admin.query("BEGIN");
      await admin.query("SELECT 1 FROM usage_periods WHERE tenant_id = $1 FOR UPDATE", [tenant.tenantId]);
      // Fewer than the pool has connections: one that waits for a connection too long is refused for another reason.
      const burst = Array.from({ length: 5 }, () => submit(tenant, { "idempotency-key": "race" }));
      const waiting = async () =>
        (await still.db.call("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%admit_task%'", [])).length;
      await expect.poll(waiting, { timeout: 5_000 }).toBeGreaterThanOrEqual(2);
      await admin.query("COMMIT");
      const answers = await Promise.all(burst);
      expect(new Set(answers.map((answer) => `${answer.status} ${answer.body.task_id ?? answer.text}`))).toEqual(new Set([`202 ${answers[0]?.body.task_id}`]));
      expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === null)).toHaveLength(1);
      expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 2 }]);
    } finally {
      await admin.end();
    }
  });

  it("gives the result once the task has ended", async () => {
    const tenant = await running.tenant();
    const first = await submit(tenant, { "idempotency-key": "done", prefer: "wait=20" });
    const again = await submit(tenant, { "idempotency-key": "done" });
    expect(first.body.status).toBe("success");
    expect([again.status, again.body]).toEqual([200, first.body]);
  });

  it("must be printable and not too long", async () => {
    const tenant = await still.tenant();
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      for (const key of ["", "a b", "x".repeat(256), "tab\there", "ü"]) expectRefusal(await submit(tenant, { "idempotency-key": key }), "INVALID_INPUT", key);
    });
    expect((await submit(tenant, { "idempotency-key": "x".repeat(255) })).status).toBe(202);
  });
});

describe("quota", () => {
  it("admits exactly as many as are left, however many come at once", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 10 } });
    const answers = await Promise.all(Array.from({ length: 60 }, () => submit(tenant)));
    expect(answers.filter((answer) => answer.status === 202)).toHaveLength(10);
    for (const answer of answers.filter(({ status }) => status !== 202))
      expect(expectRefusal(answer, "QUOTA_EXCEEDED")).toMatchObject({ plugin: "echo", quota_limit: 10, upgrade_url: expect.stringMatching(/^https:/) });
    expect(await tasksOf(still, tenant)).toBe(10);
    expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 10 }]);
  });

  it("gets a place back when a queued task is cancelled", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 1 } });
    const first = await submit(tenant);
    expectRefusal(await submit(tenant), "QUOTA_EXCEEDED");
    await tenant.api("DELETE", `/v1/tasks/${first.body.task_id}`);
    expect((await submit(tenant)).status).toBe(202);
    expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: 1 }]);
  });

  it("turns reservations into use when tasks succeed, and counts no failure", async () => {
    const tenant = await running.tenant({ subscriptions: { echo: 3, failer: 2 } });
    for (let i = 0; i < 3; i++) expect((await submit(tenant, { prefer: "wait=20" })).body.status).toBe("success");
    expectRefusal(await submit(tenant), "QUOTA_EXCEEDED");
    for (let i = 0; i < 4; i++) {
      const failed = await submit(tenant, { prefer: "wait=20" }, { command: "try", plugin: "failer" });
      expect([failed.status, failed.body.status, failed.body.error?.cause]).toEqual([200, "failed", "plugin"]);
      // Three in a row would open the plugin's circuit.
      await forgetCircuits(running.redis.url);
    }
    expect(await usageOf(running, tenant)).toEqual([
      { plugin_name: "echo", used: 3, reserved: 0 },
      { plugin_name: "failer", used: 0, reserved: 0 },
    ]);
    const bills = await running.db.call<{ plugin_name: string; billable: boolean }>("SELECT DISTINCT plugin_name, billable FROM execution_events WHERE tenant_id = $1 ORDER BY 1", [
      tenant.tenantId,
    ]);
    expect(bills.filter(({ billable }) => billable).map(({ plugin_name }) => plugin_name)).toEqual(["echo"]);
  });

  it("of none at all admits none, and a plugin without a subscription and free executions is refused with a way to get one", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 0 } });
    const stranger = await still.tenant({ subscriptions: {} });
    await useUpSandbox(still, stranger, "echo");
    await expectNothingWritten(still.env.DATABASE_URL ?? "", async () => {
      expectRefusal(await submit(tenant), "QUOTA_EXCEEDED");
      expect(expectRefusal(await submit(stranger), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: "echo", upgrade_url: expect.stringMatching(/^https:/) });
      expectRefusal(await submit(stranger, {}, { command: "x", plugin: "no-such-plugin" }), "NOT_FOUND");
    });
  });
});

describe("Prefer: wait", () => {
  it("answers 200 with the result of a task that ends in time", async () => {
    const tenant = await running.tenant();
    for (const prefer of ["wait=20", "respond-async, wait=20", "wait=20; x=y"]) {
      const answer = await submit(tenant, { prefer });
      expect([answer.status, answer.body.result, answer.headers.get("location")]).toEqual([200, "say it", `/v1/tasks/${answer.body.task_id}`]);
    }
  });

  it("answers 202 when the time is over, and the task goes on", async () => {
    const tenant = await running.tenant();
    const answer = await submit(tenant, { prefer: "wait=1" }, { command: "wait", plugin: "waiter" });
    expect(answer.status).toBe(202);
    expect(["queued", "running"]).toContain(answer.body.status);
    await tenant.api("DELETE", `/v1/tasks/${answer.body.task_id}`);
    expect((await tenant.api("GET", `/v1/tasks/${answer.body.task_id}?wait=20`)).body.status).toBe("cancelled");
  });

  it("reads the header as RFC 7240 writes it, and waits 25 seconds at most", () => {
    expect(
      ["wait=5", "respond-async, wait=5", "wait=999", "wait=0", "foo; wait=7", undefined, "", "wait", "wait=", "wait=-1", "await=5", "wait=5x"].map((text) => waitSecondsOf(text)),
    ).toEqual([5, 5, 25, 0, 7, null, null, null, null, null, null, null]);
  });
});

describe("submits of many tenants at once", () => {
  it("get each their own answer, however they travel together", async () => {
    const tenants = await Promise.all(Array.from({ length: 8 }, (_, i) => still.tenant({ subscriptions: i % 4 === 3 ? {} : { echo: i % 4 === 2 ? 3 : null } })));
    for (let round = 0; round < 5; round++) {
      // Every other round the other way round, so that two statements meet the same tenants in opposite orders.
      const order = round % 2 === 0 ? tenants : tenants.toReversed();
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => order.map(async (tenant) => ({ tenant, answer: await submit(tenant, round === 0 ? { "idempotency-key": "one" } : {}) }))).flat(),
      );
      for (const { tenant, answer } of answers) {
        const kind = tenants.indexOf(tenant) % 4;
        // Without a subscription, the tenth is the last that is free.
        const allowed = kind === 3 ? [202, 403] : kind === 2 ? [202, 429] : [202];
        expect(allowed, answer.text).toContain(answer.status);
      }
    }
    for (const [i, tenant] of tenants.entries()) {
      const right = i % 4 === 3 ? 10 : i % 4 === 2 ? 3 : 1 + 4 * 10;
      expect(await tasksOf(still, tenant), `tenant ${i}`).toBe(right);
      expect(await usageOf(still, tenant)).toEqual([{ plugin_name: "echo", used: 0, reserved: right }]);
      const listed = (await tenant.api("GET", "/v1/tasks?limit=100")).body.tasks;
      expect(listed).toHaveLength(right);
    }
  });
});
