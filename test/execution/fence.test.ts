/** The statements of an executor whose task somebody else has claimed meanwhile, said to PostgreSQL as they are. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newId, parseId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

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
