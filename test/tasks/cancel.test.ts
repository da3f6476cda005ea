import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filer, waiter } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";
import { answer, hang, hold, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

let provider: ScriptedProvider;
let still: TestPlatform;
let running: TestPlatform;
beforeAll(async () => {
  provider = await startScriptedProvider(() => hang());
  [still, running] = await Promise.all([
    startTestPlatform({ plugins: [echo], withBridge: false }),
    startTestPlatform({ plugins: [echo, waiter, asker, filer], env: { ANTHROPIC_API_KEY: "scripted", ANTHROPIC_BASE_URL: provider.url } }),
  ]);
});
afterAll(async () => {
  await Promise.all([still?.stop(), running?.stop()]);
  await provider?.stop();
});

const submit = async (tenant: TestTenant, plugin: string) => (await tenant.api("POST", "/v1/tasks", { command: "work", plugin })).body.task_id;
const cancel = (tenant: TestTenant, id: string) => tenant.api("DELETE", `/v1/tasks/${id}`);
const ended = async (tenant: TestTenant, id: string) => (await tenant.api("GET", `/v1/tasks/${id}?wait=20`)).body;
async function eventsOf(platform: TestPlatform, tenant: TestTenant) {
  return platform.db.call<{ type: string; node: string | null }>("SELECT type, data->>'node' AS node FROM task_events WHERE tenant_id = $1 ORDER BY seq", [tenant.tenantId]);
}

describe("cancelling a queued task", () => {
  it("ends it at once, gives its reservation back, and no executor runs it any more", async () => {
    const tenant = await still.tenant();
    const id = await submit(tenant, "echo");
    const answered = await cancel(tenant, id);
    expect([answered.status, answered.body]).toEqual([202, { task_id: id, status: "cancelled" }]);
    const headers = {
      authorization: `Bearer ${still.serviceToken}`,
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": randomUUID(),
      "ce-source": "/test",
      "ce-type": "io.aau.task.queued",
    };
    expect((await fetch(`${still.internalUrl}/functions/task-execute`, { method: "POST", headers, body: JSON.stringify({ task_id: id }) })).status).toBe(204);
    const task = (await tenant.api("GET", `/v1/tasks/${id}`)).body;
    expect(task).toMatchObject({ status: "cancelled", result: null, error: null, started_at: null, execution_meta: { attempts: 0, tokens_used: 0 } });
    expect(await eventsOf(still, tenant)).toEqual([{ type: "finished", node: null }]);
    expect(await still.db.call("SELECT used, reserved FROM usage_periods WHERE tenant_id = $1", [tenant.tenantId])).toEqual([{ used: 0, reserved: 0 }]);
  });

  it("can be repeated, and wakes whoever waits for the end", async () => {
    const tenant = await still.tenant();
    const id = await submit(tenant, "echo");
    const waiting = ended(tenant, id);
    expect([(await cancel(tenant, id)).status, (await cancel(tenant, id)).status]).toEqual([202, 202]);
    expect((await waiting).status).toBe("cancelled");
    expect(await eventsOf(still, tenant)).toHaveLength(1);
  });
});

describe("cancelling a running task", () => {
  it("ends it within the node that is at work", async () => {
    const tenant = await running.tenant();
    const id = await submit(tenant, "waiter");
    await expect.poll(async () => (await eventsOf(running, tenant)).map(({ type }) => type), { timeout: 15_000 }).toContain("report");
    expect((await cancel(tenant, id)).body.status).toBe("cancelling");
    expect(await ended(tenant, id)).toMatchObject({ status: "cancelled", result: null, error: null });
    const nodes = (await eventsOf(running, tenant)).filter(({ type }) => type === "node_started").map(({ node }) => node);
    expect(nodes).toEqual(["first"]);
    expect(await running.db.call("SELECT used, reserved FROM usage_periods WHERE tenant_id = $1", [tenant.tenantId])).toEqual([{ used: 0, reserved: 0 }]);
  });

  it("closes the provider's socket within a second of a model call", async () => {
    const tenant = await running.tenant();
    const call = provider.ledger.length + 1;
    const id = await submit(tenant, "asker");
    await provider.arrived(call);
    const askedAt = Date.now();
    expect((await cancel(tenant, id)).body.status).toBe("cancelling");
    const entry = await provider.ended(call);
    expect(entry.closedEarly).toBe(true);
    expect((entry.closedAt ?? Number.POSITIVE_INFINITY) - askedAt).toBeLessThan(1_000);
    expect((await ended(tenant, id)).status).toBe("cancelled");
    expect(provider.ledger).toHaveLength(call);
    const calls = await running.db.call<{ state: string; cost: string }>("SELECT state, cost_micro_usd AS cost FROM llm_calls WHERE tenant_id = $1", [tenant.tenantId]);
    expect(calls).toHaveLength(1);
    expect(["failed", "unknown"]).toContain(calls[0]?.state);
  });

  it("is decided by the first terminal write: a task whose answer is in comes out one way, never both", async () => {
    const held = hold();
    provider.use(() => answer("the answer", { after: held.gone }));
    const tenant = await running.tenant();
    const call = provider.ledger.length + 1;
    const id = await submit(tenant, "asker");
    await provider.arrived(call);
    held.letGo();
    const said = await cancel(tenant, id);
    const task = await ended(tenant, id);
    if (said.status === 409) expect(task.status).toBe("success");
    else expect(["success", "cancelled"]).toContain(task.status);
    expect((await eventsOf(running, tenant)).filter(({ type }) => type === "finished")).toHaveLength(1);
    provider.use(() => hang());
  });
});

describe("cancelling what is over", () => {
  it("answers 409 with the status, and the task stays as it is", async () => {
    const tenant = await running.tenant();
    const { body: task } = await tenant.api("POST", "/v1/tasks", { command: "keep this", plugin: "filer" }, { prefer: "wait=20" });
    expect(expectRefusal(await cancel(tenant, task.task_id), "CONFLICT")).toMatchObject({ status: "success" });
    expect((await tenant.api("GET", `/v1/tasks/${task.task_id}`)).body).toEqual(task);
    expect((await tenant.api("GET", task.artifacts[0].url)).status).toBe(302);
  });

  it("of another tenant answers 404, and the task goes on", async () => {
    const [tenant, stranger] = [await still.tenant(), await still.tenant()];
    const id = await submit(tenant, "echo");
    expectRefusal(await cancel(stranger, id), "NOT_FOUND");
    expect((await tenant.api("GET", `/v1/tasks/${id}`)).body.status).toBe("queued");
  });
});
