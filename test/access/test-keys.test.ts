import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CALLS, payer } from "../execution/paying-plugin.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { answer, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

let provider: ScriptedProvider;
let platform: TestPlatform;
beforeAll(async () => {
  provider = await startScriptedProvider(() => answer("from the provider"));
  platform = await startTestPlatform({ plugins: [payer], env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted" } });
}, 60_000);
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});

/** One task with a key of this environment: what the provider was asked, and what the tenant is billed. */
async function work(tenant: TestTenant, environment: "live" | "test") {
  const { key } = await tenant.mintKey({ environment });
  const asked = provider.ledger.length;
  const { body } = await platform.call("POST", "/v1/tasks", { key, body: { command: "go", plugin: "payer" }, headers: { prefer: "wait=20" } });
  expect(["success", "partial"]).toContain(body.status);
  const [event] = await platform.db.call<{ billable: boolean; cost: string; model: string }>(
    "SELECT billable, cost_micro_usd AS cost, model FROM execution_events WHERE tenant_id = $1 ORDER BY timestamp DESC LIMIT 1",
    [tenant.tenantId],
  );
  return { asked: provider.ledger.length - asked, ...event };
}

describe("the work of a test key", () => {
  it("is answered by the offline model though there is a provider, costs nothing and is billed to nobody", async () => {
    const tenant = await platform.tenant();
    expect(await work(tenant, "test")).toEqual({ asked: 0, billable: false, cost: "0", model: "offline-extractive" });
    expect(await work(tenant, "live")).toMatchObject({ asked: CALLS, billable: true });
  });

  it("goes to the provider where the tenant's settings say so, and is still billed to nobody", async () => {
    const tenant = await platform.tenant({ settings: { test_models: "live" } });
    expect(await work(tenant, "test")).toMatchObject({ asked: CALLS, billable: false });
  });
});
