import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";

const State = Annotation.Root({ text: Annotation<string>() });
const slow = definePlugin({
  name: "slow",
  version: "1.0.0",
  description: "Takes a moment, for tests.",
  capabilities: ["Take a moment."],
  category: "testing",
  estimatedLatency: "medium",
  graph: new StateGraph(State)
    .addNode(
      "work",
      node(async () => {
        await new Promise((resolve) => setTimeout(resolve, 100));
        return { text: "done" };
      }),
    )
    .addEdge(START, "work")
    .addEdge("work", END),
  start: () => ({ text: "" }),
  finish: ({ text }: typeof State.State) => ({ status: "success", result: text, confidence: 1 }),
});

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [slow], env: { BRIDGE_IN_FLIGHT: "4" } });
});
afterAll(() => platform?.stop());

describe("a tenant that queues more than its share", () => {
  it("does not have another tenant's single task wait behind all of it, and gets all of it done", async () => {
    const [many, one] = [await platform.tenant({ tier: "enterprise" }), await platform.tenant()];
    const QUEUED = 200;
    const admitted = await Promise.all(Array.from({ length: QUEUED }, () => many.api("POST", "/v1/tasks", { command: "again", plugin: "slow" }, { prefer: "wait=0" })));
    expect(admitted.every(({ status }) => status === 202)).toBe(true);
    const single = await one.api("POST", "/v1/tasks", { command: "once", plugin: "slow" }, { prefer: "wait=30" });
    const open = async () => (await platform.db.call("SELECT 1 FROM tasks WHERE tenant_id = $1 AND status IN ('queued', 'running')", [many.tenantId])).length;
    expect(await open()).toBeGreaterThan(20);
    expect(single.body).toMatchObject({ status: "success", result: "done" });
    await expect.poll(open, { timeout: 40_000 }).toBe(0);
  });
});
