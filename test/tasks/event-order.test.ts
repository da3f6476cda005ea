import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { admitPlan, giver, step } from "../execution/plans.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
let tenant: TestTenant;
let sessions: [pg.Client, pg.Client];
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [giver], withBridge: false });
  tenant = await platform.tenant();
  const open = async () => {
    const client = new pg.Client({ connectionString: platform.env.DATABASE_URL });
    await client.connect();
    return client;
  };
  sessions = [await open(), await open()];
});
afterAll(async () => {
  for (const session of sessions ?? []) await session.end();
  await platform?.stop();
});

/** A task that runs, and a way for a session to append one event to it. */
async function running() {
  const id = await admitPlan(platform, tenant, [step("main", "giver")]);
  const lease = crypto.randomUUID();
  await platform.db.platform((tx) =>
    sql`UPDATE tasks SET status = 'running', lease_token = ${lease}, lease_until = now() + interval '1 minute', attempt = 1 WHERE id = ${id}`.execute(tx),
  );
  const append = (session: pg.Client, message: string) =>
    session.query("SELECT * FROM append_progress($1, $2, $3, $4)", [tenant.tenantId, id, lease, JSON.stringify([{ type: "report", data: { message } }])]);
  const read = async (after: number) =>
    (
      await platform.db.call<{ seq: number; message: string }>("SELECT seq, data->>'message' AS message FROM task_events WHERE task_id = $1 AND seq > $2 ORDER BY seq", [id, after])
    ).map(({ seq, message }) => `${seq} ${message}`);
  return { append, read };
}

const isWaiting = async () => {
  const rows = await platform.db.call("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%append_progress%'", []);
  return rows.length;
};

it("no event is behind the cursor of one who has read a later one: whoever takes a number first is seen first", async () => {
  const { append, read } = await running();
  const [slow, quick] = sessions;
  await slow.query("BEGIN");
  await append(slow, "slow");
  const second = append(quick, "quick");
  // It has to wait for the number, and with it for the commit; otherwise a reader would see 2, move past 1, and never see that.
  await expect.poll(isWaiting).toBe(1);
  expect(await read(0)).toEqual([]);
  await slow.query("COMMIT");
  await second;
  expect(await read(0)).toEqual(["1 slow", "2 quick"]);
});

it("a number that was taken and given back is the next one's", async () => {
  const { append, read } = await running();
  const [slow, quick] = sessions;
  await slow.query("BEGIN");
  await append(slow, "slow");
  const second = append(quick, "quick");
  await expect.poll(isWaiting).toBe(1);
  await slow.query("ROLLBACK");
  await second;
  expect(await read(0)).toEqual(["1 quick"]);
});
