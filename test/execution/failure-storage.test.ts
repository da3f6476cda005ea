import { startFauxqs } from "fauxqs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openObjectStore } from "../../shared/storage/object-store.ts";
import { filer } from "../batteries/plugins.ts";
import { forgetCircuits } from "../support/circuits.ts";
import { type ObjectStoreProxy, type StoreFault, startObjectStoreProxy } from "../support/object-store-proxy.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let store: Awaited<ReturnType<typeof startFauxqs>>;
let proxy: ObjectStoreProxy;
let platform: TestPlatform;
beforeAll(async () => {
  store = await startFauxqs({ port: 0, logger: false });
  proxy = await startObjectStoreProxy(() => `http://127.0.0.1:${store.port}`);
  platform = await startTestPlatform({ plugins: [filer], env: { S3_ENDPOINT: proxy.url } });
});
afterAll(async () => {
  await platform?.stop();
  await proxy?.stop();
  await store?.stop();
});
beforeEach(async () => {
  proxy.fault = "none";
  await forgetCircuits(platform.redis.url);
});

const waiting = (tenant: TestTenant) =>
  platform.db.call<{ state: string; waits: boolean; attempts: number | null }>(
    "SELECT a.state, u.artifact_id IS NOT NULL AS waits, u.attempts FROM artifacts a LEFT JOIN artifact_uploads u ON u.artifact_id = a.id WHERE a.tenant_id = $1",
    [tenant.tenantId],
  );
const makeDue = () =>
  platform.db.platform((tx) =>
    tx
      .updateTable("artifact_uploads" as never)
      .set({ next_attempt_at: new Date(0) } as never)
      .execute(),
  );

async function fileUnder(fault: StoreFault) {
  const tenant = await platform.tenant();
  proxy.fault = fault;
  const { body } = await tenant.api("POST", "/v1/tasks", { command: `kept under ${fault}`, plugin: "filer" }, { prefer: "wait=25" });
  return { tenant, body, address: `/v1/tasks/${body.task_id}/artifacts/report.txt` };
}

describe("an object store that takes everything", () => {
  it("has the file, and nothing waits", async () => {
    const { tenant, body, address } = await fileUnder("none");
    expect(body).toMatchObject({ status: "success", warnings: [], artifacts: [{ name: "report.txt" }] });
    expect(await waiting(tenant)).toEqual([{ state: "stored", waits: false, attempts: null }]);
    const answer = await tenant.api("GET", address);
    expect(answer.status).toBe(302);
    expect(await (await fetch(answer.headers.get("location") ?? "")).text()).toBe("kept under none");
  });
});

describe.each<StoreFault>(["refuse", "hang", "slow-down", "forbidden", "corrupt"])("an object store that is away (%s)", (fault) => {
  it("does not take the result away: the file waits, can be read, and is uploaded later", async () => {
    const { tenant, body, address } = await fileUnder(fault);
    expect(body).toMatchObject({ status: "success", result: "stored", artifacts: [{ name: "report.txt", size_bytes: `kept under ${fault}`.length }] });
    expect(body.warnings).toMatchObject([{ code: "ARTIFACT_DELAYED", message: expect.stringContaining("report.txt") }]);
    expect(await waiting(tenant)).toEqual([{ state: "pending", waits: true, attempts: 0 }]);

    const early = await tenant.api("GET", address);
    expect([early.status, early.text, early.headers.get("content-type"), early.headers.get("content-disposition")]).toEqual([
      200,
      `kept under ${fault}`,
      "text/plain",
      'attachment; filename="report.txt"',
    ]);
    const stranger = await platform.tenant();
    expect((await stranger.api("GET", address)).status).toBe(404);

    if (fault !== "hang") {
      await platform.runCron("artifact-upload");
      expect(await waiting(tenant)).toEqual([{ state: "pending", waits: true, attempts: 1 }]);
    }
    proxy.fault = "none";
    await makeDue();
    await Promise.all([platform.runCron("artifact-upload"), platform.runCron("artifact-upload")]);
    expect(await waiting(tenant)).toEqual([{ state: "stored", waits: false, attempts: null }]);
    const late = await tenant.api("GET", address);
    expect(late.status).toBe(302);
    expect(await (await fetch(late.headers.get("location") ?? "")).text()).toBe(`kept under ${fault}`);
  }, 60_000);
});

describe("files that wait", () => {
  it("are not uploaded while their task may still replace them", async () => {
    const { tenant } = await fileUnder("refuse");
    await platform.db.platform((tx) => tx.updateTable("tasks").set({ status: "running" }).where("tenant_id", "=", tenant.tenantId).execute());
    proxy.fault = "none";
    await makeDue();
    await platform.runCron("artifact-upload");
    expect((await waiting(tenant))[0]?.state).toBe("pending");
  });

  it("are bounded, and the one too many is refused without a trace", async () => {
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "x", plugin: "filer" }, { prefer: "wait=25" });
    const [task] = await platform.db.call<{ id: string; lease_token: string }>("SELECT id, lease_token FROM tasks WHERE tenant_id = $1", [tenant.tenantId]);
    expect(body.status).toBe("success");
    await platform.db.platform((tx) => tx.updateTable("tasks").set({ status: "running" }).where("tenant_id", "=", tenant.tenantId).execute());
    await platform.db.call("DELETE FROM task_steps WHERE task_id = $1", [task?.id]);
    const keep = (name: string) =>
      platform.db.call("SELECT mark_pending(put_artifact($1, $2, $3, gen_random_uuid(), 'filer', $4, 'text/plain', 6, 'x', 'key', 100), '\\x616263616263', 10, 100) AS id", [
        tenant.tenantId,
        task?.id,
        task?.lease_token,
        name,
      ]);
    await keep("one.txt");
    // The same name again replaces what waits under it.
    await keep("one.txt");
    await expect(keep("two.txt")).rejects.toMatchObject({ code: "AAU01" });
    const names = await platform.db.call<{ name: string }>("SELECT name FROM artifacts WHERE tenant_id = $1 ORDER BY name", [tenant.tenantId]);
    expect(names.map(({ name }) => name)).toEqual(["one.txt", "report.txt"]);
  });
});

describe("an object store that holds other bytes than were sent", () => {
  it("is noticed, whatever it calls the object", async () => {
    const direct = openObjectStore({ endpoint: proxy.url, bucket: "aau-artifacts", region: "us-east-1", accessKeyId: "test", secretAccessKey: "test" });
    proxy.fault = "corrupt";
    await expect(direct.put("a/b", Buffer.from("right bytes"), "text/plain")).rejects.toThrow("other bytes");
    direct.close();
  });
});
