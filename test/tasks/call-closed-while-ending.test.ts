import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
});
afterAll(() => platform?.stop());

const CLOSE = "SELECT * FROM close_llm_call($1, $2, 'done', 'm', '{}', 10, 5, 0, 0, 700, 'req_1', NULL, NULL)";

describe("a model call that is closed in the moment in which its task ends", () => {
  it("counts in the task's cost as it does in its usage", async () => {
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "go", plugin: "echo" });
    const task = parseId("task", body.task_id);
    const call = randomUUID();
    const [claimed] = await platform.db.call<{ lease_token: string }>("SELECT lease_token FROM claim_tasks(ARRAY[$1::uuid], $2, $3)", [task, 30_000, 3]);
    const opened = [tenant.tenantId, task, claimed?.lease_token, "main", "echo", null, call, "sha", 1, "m", "v1", 900, 15_000];
    await platform.db.call("SELECT * FROM open_llm_call($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)", opened);

    const gateway = new pg.Client({ connectionString: platform.env.DATABASE_URL });
    await gateway.connect();
    try {
      // The gateway has written the call's end and not committed it yet; the settlement waits for its row.
      await gateway.query("BEGIN");
      await gateway.query(CLOSE, [tenant.tenantId, call]);
      const end = { place: 0, tenant: tenant.tenantId, id: task, lease: claimed?.lease_token, status: "cancelled", result: null, error: null, steps: [], events: [] };
      const settled = platform.db.call("SELECT * FROM settle_tasks($1)", [JSON.stringify([end])]);
      const waiting = async () =>
        (await platform.db.call("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%settle_task%'", [])).length;
      await expect.poll(waiting, { timeout: 10_000 }).toBe(1);
      await gateway.query("COMMIT");
      await settled;
    } finally {
      await gateway.end();
    }

    const { body: ended } = await tenant.api("GET", `/v1/tasks/${body.task_id}`);
    expect(ended).toMatchObject({ status: "cancelled", execution_meta: { tokens_used: 15, cost_estimate_usd: "0.000700" } });
  });
});
