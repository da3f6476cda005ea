import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { type Pod, startPod } from "../support/pod.ts";
import { answer, hold, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";
import { CALLS, payer } from "./paying-plugin.ts";

let folder: string;
let holdFile: string;
let provider: ScriptedProvider;
let platform: TestPlatform;
let pod: Pod;
let before: number;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-pay-"));
  holdFile = join(folder, "hold");
  provider = await startScriptedProvider(() => answer("unused"));
  platform = await startTestPlatform({ env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted" } });
  pod = await startPod({
    program: fileURLToPath(new URL("./paying-plugin.ts", import.meta.url)),
    env: { LLM_GATEWAY_URL: platform.internalUrl, SCOPE_GATEWAY_URL: platform.internalUrl, HOLD_FILE: holdFile },
  });
  await platform.register(payer, pod.url);
}, 60_000);
afterAll(async () => {
  await pod?.stop();
  await platform?.stop();
  await provider?.stop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await rm(`${holdFile}.held`, { force: true });
  before = provider.ledger.length;
  provider.use(({ call }) => answer(`answer ${call}`, { usage: { input_tokens: 100 + call, output_tokens: call } }));
});

const ledger = () => provider.ledger.slice(before);

async function submit(tenant: TestTenant): Promise<string> {
  const { body } = await tenant.api("POST", "/v1/tasks", { command: "go", plugin: "payer" });
  return body.task_id;
}

async function ended(tenant: TestTenant, taskId: string) {
  for (;;) {
    const { body } = await tenant.api("GET", `/v1/tasks/${taskId}?wait=25`);
    if (body.completed_at !== null) return body;
  }
}

/** The provider was asked each thing once, and the tenant is billed what it counted. */
async function expectPaidOnce(tenant: TestTenant) {
  expect(ledger().filter(({ completed }) => completed)).toHaveLength(CALLS);
  expect(ledger()).toHaveLength(CALLS);
  const counted = ledger().reduce((sum, { usage }) => sum + (usage?.input_tokens ?? 0) + (usage?.output_tokens ?? 0), 0);
  const [billed] = await platform.db.call<{ tokens_used: string; billable: boolean; n: number }>(
    "SELECT tokens_used, billable, (SELECT count(*)::int FROM llm_calls c WHERE c.task_id = e.task_id) AS n FROM execution_events e WHERE tenant_id = $1",
    [tenant.tenantId],
  );
  expect(billed).toEqual({ tokens_used: String(counted), billable: true, n: CALLS });
}

const nodesStarted = async (tenant: TestTenant) =>
  (await platform.db.call<{ node: string }>("SELECT data->>'node' AS node FROM task_events WHERE tenant_id = $1 AND type = 'node_started' ORDER BY seq", [tenant.tenantId])).map(
    ({ node }) => node,
  );

describe("a plugin that is killed in its third node", () => {
  it("is run again by its next process, and the provider is asked each thing once", async () => {
    const tenant = await platform.tenant({ subscriptions: { payer: null } });
    await writeFile(holdFile, "");
    const task = await submit(tenant);
    await expect.poll(() => existsSync(`${holdFile}.held`), { timeout: 20_000 }).toBe(true);
    expect(ledger()).toHaveLength(CALLS - 1);
    await rm(holdFile);
    await pod.replace("SIGKILL");
    const body = await ended(tenant, task);
    expect(body).toMatchObject({ status: "success", error: null });
    expect(body.result.split("\n")).toHaveLength(CALLS);
    expect((await nodesStarted(tenant)).filter((node) => node === "first").length).toBeGreaterThanOrEqual(2);
    await expectPaidOnce(tenant);
  }, 120_000);
});

describe("a plugin that gets SIGTERM", () => {
  it("stops at the next node, and another process goes on where it was, at no cost and without a charged attempt", async () => {
    const tenant = await platform.tenant({ subscriptions: { payer: null } });
    const held = hold();
    provider.use(({ call }) => answer(`answer ${call}`, { usage: { input_tokens: 10, output_tokens: call }, ...(call === before + 1 && { after: held.gone }) }));
    const task = await submit(tenant);
    await provider.arrived(before + 1);
    await pod.askToStop();
    held.letGo();
    await pod.replace();
    const body = await ended(tenant, task);
    expect(body).toMatchObject({ status: "success", error: null });
    await expectPaidOnce(tenant);
    // The process that had to go began none of the nodes behind the one that ran.
    expect((await nodesStarted(tenant)).filter((node) => node !== "first")).toEqual(["branch", "branch", "branch", "third", "last"]);
    const [row] = await platform.db.call<{ attempt: number; hand_backs: number }>("SELECT attempt, hand_backs FROM tasks WHERE tenant_id = $1", [tenant.tenantId]);
    expect((row?.attempt ?? 0) - (row?.hand_backs ?? 0)).toBe(1);
    expect(row?.hand_backs).toBeGreaterThanOrEqual(1);
  }, 120_000);
});
