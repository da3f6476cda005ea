import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

describe("an instance that is asked to stop", () => {
  it("answers those who wait at once, ends their streams in order, and takes nobody new", async () => {
    const first = await tenant.api("POST", "/v1/tasks", { command: "stays queued", plugin: "echo" });
    const stream = await fetch(`${platform.publicUrl}/v1/tasks/${first.body.task_id}/events`, { headers: { authorization: `Bearer ${tenant.key}` } });
    const waiting = [
      tenant.api("POST", "/v1/tasks", { command: "stays queued too", plugin: "echo" }, { prefer: "wait=25" }),
      tenant.api("GET", `/v1/tasks/${first.body.task_id}?wait=25`),
    ];
    // Both are inside once the second task has its row.
    await expect.poll(async () => (await tenant.api("GET", "/v1/tasks")).body.tasks.length).toBe(2);
    const startedAt = Date.now();
    await platform.platform.stop();
    const answers = await Promise.all(waiting);
    expect(answers.map((answer) => [answer.status, answer.body.status, answer.headers.get("connection")])).toEqual([
      [202, "queued", "close"],
      [200, "queued", "close"],
    ]);
    expect(await stream.text()).toBe("retry: 1000\n\n");
    // Far from the 25 seconds that they would have waited.
    expect(Date.now() - startedAt).toBeLessThan(15_000);
    await expect(fetch(`${platform.publicUrl}/docs`)).rejects.toThrow();
  });
});
