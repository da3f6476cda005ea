/** The statements of an executor whose task somebody else has claimed meanwhile, said to PostgreSQL as they are. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newId, parseId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
let session: pg.Client;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  tenant = await platform.tenant();
  session = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await session.connect();
});
afterAll(async () => {
  await session?.end();
  await platform?.stop();
});

const claim = async (id: string) => (await platform.db.call<{ lease_token: string }>("SELECT lease_token FROM claim_tasks(ARRAY[$1::uuid], 30000, 3)", [id]))[0]?.lease_token ?? "";
const row = async (id: string) =>
  (
    await platform.db.call<{ status: string; lease_token: string; lease_until: Date; event_seq: number }>(
      "SELECT status, lease_token, lease_until, event_seq FROM tasks WHERE id = $1",
      [id],
    )
  )[0];

/** A task that runs, with the lease of who runs it now and of who ran it before. */
async function claimedTwice(): Promise<{ id: string; stale: string; held: string }> {
  const { body } = await tenant.api("POST", "/v1/tasks", { command: "say it", plugin: "echo" });
  const id = parseId("task", body.task_id) ?? newId("task");
  const stale = await claim(id);
  await platform.db.call("UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = $1", [id]);
  return { id, stale, held: await claim(id) };
}

describe("an executor whose task another one has claimed", () => {
  const settle = (id: string, lease: string) =>
    platform.db.call("SELECT settled FROM settle_tasks($1)", [
      JSON.stringify([{ place: 0, tenant: tenant.tenantId, id, lease, status: "success", result: {}, error: null, steps: [], events: [] }]),
    ]);

  it("settles nothing", async () => {
    const { id, stale, held } = await claimedTwice();
    expect(await settle(id, stale)).toEqual([{ settled: false }]);
    expect(await row(id)).toMatchObject({ status: "running", lease_token: held });
    expect(await settle(id, held)).toEqual([{ settled: true }]);
  });

  it("renews nothing, and adds no progress", async () => {
    const { id, stale, held } = await claimedTwice();
    const renew = (lease: string) =>
      platform.db.call("SELECT held FROM renew_lease($1, $2, $3, 60000, $4)", [tenant.tenantId, id, lease, JSON.stringify([{ type: "progress", data: {} }])]);
    const before = await row(id);
    expect(await renew(stale)).toEqual([{ held: false }]);
    expect(await row(id)).toEqual(before);
    expect(await renew(held)).toEqual([{ held: true }]);
  });
});

describe("a plugin whose step ends while its write waits for the task's row", () => {
  const ticket = JSON.stringify([{ place: 0, fingerprint: "a".repeat(64), title: "It hangs", type: "bug", priority: "low", labels: [] }]);
  it.each([
    ["reports nothing", "append_progress", 'SELECT held FROM append_progress($1, $2, $3, \'[{"type": "report", "data": {}}]\', \'main\')', [{ held: false }]],
    ["stores no file", "put_artifact", "SELECT put_artifact($1, $2, $3, gen_random_uuid(), 'echo', 'x.txt', 'text/plain', 1, 'x', 'key', 100, 'main') AS id", [{ id: null }]],
    ["files no ticket", "create_tickets", `SELECT ticket FROM create_tickets($1, $2, $3, 'echo', '${ticket}', 'main')`, []],
    ["changes no ticket", "change_ticket", `SELECT outcome FROM change_ticket($1, $2, $3, 1, '{"team": "late"}', 'main')`, []],
  ])("%s", async (_, name, statement, refused) => {
    const { id, held } = await claimedTwice();
    await session.query("BEGIN");
    const step = { step: "main", plugin_name: "echo", plugin_version: "1.0.0", attempt: 2, status: "success", output: {}, error: null, confidence: 1, latency_ms: 1 };
    await session.query("SELECT record_step($1, $2, $3, $4, '[]')", [tenant.tenantId, id, held, JSON.stringify(step)]);
    const late = platform.db.call(statement, [tenant.tenantId, id, held]);
    await expect
      .poll(() => platform.db.call("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1", [`%${name}(%`]))
      .toHaveLength(1);
    await session.query("COMMIT");
    expect(await late).toEqual(refused);
  });
});
