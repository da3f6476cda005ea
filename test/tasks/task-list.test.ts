import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filer } from "../batteries/plugins.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
/** Newest first, as the list should give them. */
const made: { id: string; plugin: string; status: string }[] = [];

beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer], withBridge: false });
  tenant = await platform.tenant();
  const stranger = await platform.tenant();
  for (let i = 0; i < 250; i++) {
    const plugin = i % 5 === 0 ? "filer" : "echo";
    const { body } = await tenant.api("POST", "/v1/tasks", { command: `number ${i}`, plugin });
    if (i % 7 === 0) await tenant.api("DELETE", `/v1/tasks/${body.task_id}`);
    if (i % 10 === 0) await stranger.api("POST", "/v1/tasks", { command: "not yours", plugin });
    made.unshift({ id: body.task_id, plugin, status: i % 7 === 0 ? "cancelled" : "queued" });
  }
});
afterAll(() => platform?.stop());

interface Page {
  tasks: { task_id: string }[];
  next_cursor: string | null;
}

async function pages(query: string, between: () => Promise<void> = async () => {}): Promise<string[][]> {
  const all: string[][] = [];
  for (let cursor: string | null = ""; cursor !== null; ) {
    const answer = await tenant.api("GET", `/v1/tasks?${query}${cursor && `&cursor=${cursor}`}`);
    const page: Page = answer.body;
    all.push(page.tasks.map((task) => task.task_id));
    cursor = page.next_cursor;
    await between();
  }
  return all;
}

describe("task-list", () => {
  it.each([
    [100, 3],
    [50, 5],
    [37, 7],
    [1, 250],
  ])("gives 250 tasks in pages of %i, each once, newest first", async (limit, count) => {
    const all = await pages(`limit=${limit}`);
    expect(all).toHaveLength(count);
    expect(all.flat()).toEqual(made.map((task) => task.id));
    expect(all.slice(0, -1).every((page) => page.length === limit)).toBe(true);
  });

  it("gives 20 a page unless said", async () => {
    expect((await tenant.api("GET", "/v1/tasks")).body.tasks).toHaveLength(20);
  });

  it.each([
    ["status=cancelled", (task: (typeof made)[number]) => task.status === "cancelled"],
    ["status=queued", (task: (typeof made)[number]) => task.status === "queued"],
    ["plugin=filer", (task: (typeof made)[number]) => task.plugin === "filer"],
    ["plugin=filer&status=cancelled", (task: (typeof made)[number]) => task.plugin === "filer" && task.status === "cancelled"],
    ["status=success", () => false],
    ["plugin=unknown", () => false],
  ])("filters by %s over all pages", async (query, isMeant) => {
    expect((await pages(`limit=10&${query}`)).flat()).toEqual(made.filter(isMeant).map((task) => task.id));
  });

  it("moves no page when tasks are added while one reads", async () => {
    const other = await platform.tenant();
    const before: string[] = [];
    for (let i = 0; i < 9; i++) before.unshift((await other.api("POST", "/v1/tasks", { command: "x", plugin: "echo" })).body.task_id);
    const seen: string[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body } = await other.api("GET", `/v1/tasks?limit=2${cursor && `&cursor=${cursor}`}`);
      seen.push(...body.tasks.map((task: { task_id: string }) => task.task_id));
      cursor = body.next_cursor;
      await other.api("POST", "/v1/tasks", { command: "newer", plugin: "echo" });
    }
    expect(seen).toEqual(before);
  });
});
