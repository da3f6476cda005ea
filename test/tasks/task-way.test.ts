import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo] });
});
afterAll(() => platform?.stop());

describe("the way of one task", () => {
  it("answers 200 with the result when the caller waits", async () => {
    const tenant = await platform.tenant();
    const answer = await tenant.api("POST", "/v1/tasks", { command: "say hello", plugin: "echo" }, { prefer: "wait=20" });
    expect(answer.body).toMatchObject({ status: "success", plugin: "echo", routing: { method: "explicit", confidence: 1 }, result: "say hello", error: null });
    expect(answer.status).toBe(200);
    const metrics = await (await fetch(`${platform.internalUrl}/metrics`)).text();
    expect(metrics).toMatch(/^aau_sync_delivery_seconds_count 1$/m);
  });

  it("answers 202 at once, and the task can be polled until it has ended", async () => {
    const tenant = await platform.tenant();
    const submitted = await tenant.api("POST", "/v1/tasks", { command: "say hello", plugin: "echo" });
    expect(submitted.status).toBe(202);
    expect(submitted.headers.get("location")).toBe(`/v1/tasks/${submitted.body.task_id}`);
    const polled = await tenant.api("GET", `/v1/tasks/${submitted.body.task_id}?wait=20`);
    expect(polled.body).toMatchObject({ status: "success", result: "say hello", execution_meta: { tokens_used: 0, cost_estimate_usd: "0.000000", attempts: 1 } });
  });
});
