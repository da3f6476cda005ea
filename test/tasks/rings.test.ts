import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asId, parseId } from "../../shared/ids.ts";
import { takeDueTasks } from "../../shared/tasks/read-tasks.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
});
afterAll(() => platform?.stop());

/** A queued task that nobody hears, due now, with this long to live. */
async function unheardTask(livesMs: number): Promise<string> {
  const tenant = await platform.tenant();
  const { body } = await tenant.api("POST", "/v1/tasks", { command: "go", plugin: "echo", deadline: new Date(Date.now() + livesMs).toISOString() });
  return asId("task", parseId("task", body.task_id) ?? "");
}

async function ringState(id: string) {
  const row = await platform.db.platform((tx) =>
    sql<{ next_ms: number; to_deadline_ms: number; ring_count: number }>`SELECT extract(epoch FROM next_ring_at - now())::float8 * 1000 AS next_ms,
      extract(epoch FROM deadline - next_ring_at)::float8 * 1000 AS to_deadline_ms, ring_count FROM tasks WHERE id = ${id}`.execute(tx),
  );
  return row.rows[0] ?? { next_ms: 0, to_deadline_ms: 0, ring_count: -1 };
}

const makeDue = (id: string, ringCount: number) =>
  platform.db.platform((tx) => sql`UPDATE tasks SET next_ring_at = now() - interval '1 second', ring_count = ${ringCount} WHERE id = ${id}`.execute(tx));

describe("rings for a task that nobody hears", () => {
  it("come less and less often", async () => {
    const id = await unheardTask(3_600_000);
    await makeDue(id, 3);
    expect((await takeDueTasks(platform.db, 100)).map((task) => task.id)).toContain(id);
    const { next_ms, ring_count } = await ringState(id);
    expect(ring_count).toBe(4);
    expect(next_ms).toBeGreaterThan(60_000);
  });

  it("come at the deadline at the latest, since only a claim ends the task then", async () => {
    const id = await unheardTask(40_000);
    await makeDue(id, 5);
    await takeDueTasks(platform.db, 100);
    expect((await ringState(id)).to_deadline_ms).toBe(0);
  });

  it("begin with short pauses again once one was heard", async () => {
    const id = await unheardTask(3_600_000);
    await makeDue(id, 5);
    await platform.db.call("SELECT * FROM claim_tasks(ARRAY[$1::uuid], $2, $3)", [id, 30_000, 3]);
    expect((await ringState(id)).ring_count).toBe(0);
  });

  it("are not put off while Redis is away", async () => {
    const id = await unheardTask(3_600_000);
    await makeDue(id, 0);
    await platform.redis.stop();
    await platform.runCron("wake");
    expect((await ringState(id)).ring_count).toBe(0);
  });
});
