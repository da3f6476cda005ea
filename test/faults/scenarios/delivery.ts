/** Rings that come twice, late, out of order, for nobody, or all at once; callers that change their mind; processes that come and go. */
import { publicId } from "../../../shared/ids.ts";
import { taskStream } from "../../../shared/redis/streams.ts";
import { LEASE_MS, type ProcessName } from "../platform.ts";
import plugin from "../plugin.ts";
import { ask } from "../redis-server.ts";
import { delay, during, type Scenario, type ScenarioTools } from "./scenario.ts";

const STREAM = taskStream(plugin.name);
const SKEW_MS = 600_000;

/** Rings for what is open or has just ended, in an order that hangs on `round`. */
async function ringAgain({ platform }: ScenarioTools, round: number): Promise<void> {
  const { rows } = await platform.look.query<{ id: string }>(
    "SELECT id FROM tasks WHERE status IN ('queued', 'running') OR completed_at > now() - interval '5 seconds' ORDER BY md5(id::text || $1) LIMIT 200",
    [String(round)],
  );
  const ids = [...rows.map(({ id }) => id), "00000000-0000-7000-8000-000000000000"];
  await ask(platform.redis.url, async (redis) => {
    for (const id of ids) await redis.xadd(STREAM, "*", "task_id", publicId("task", id), "traceparent", "");
  });
}

/** Every ring was answered, or a while is over. */
async function untilRead({ platform }: ScenarioTools): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if ((await ask(platform.redis.url, (redis) => redis.xlen(STREAM))) === 0) return;
    await delay(100);
  }
}

export const DELIVERY_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-18",
    title: "every ring comes again and again, out of order and after the end, among rings for tasks that nobody knows",
    isShort: true,
    async run(tools, count) {
      let isOver = false;
      const work = tools.send(count).finally(() => {
        isOver = true;
      });
      for (let i = 0; !isOver; i++) {
        await delay(400);
        await ringAgain(tools, i);
      }
      await work;
      // Once more, when all have ended.
      await ringAgain(tools, -1);
      await untilRead(tools);
    },
  },
  {
    id: "F-19",
    title: "a thief claims the pending entries while their work runs",
    run: (tools, count) =>
      during(
        tools,
        tools.send(count, () => ({ slowMs: 800 })),
        async () => {
          for (let i = 0; i < 3; i++) {
            await ask(tools.platform.redis.url, (redis) => redis.xautoclaim(STREAM, "bridge", "thief", 0, "0-0", "COUNT", 100)).catch(() => {});
            await delay(700);
          }
          // The thief dies with what it took; the bridge has to take it back.
          await ask(tools.platform.redis.url, async (redis) => {
            const pending = (await redis.xpending(STREAM, "bridge", "-", "+", 100, "thief")) as [string][];
            for (const [id] of pending) await redis.xclaim(STREAM, "bridge", "thief", 0, id, "IDLE", 86_400_000, "JUSTID");
          });
        },
      ),
  },
  {
    id: "F-20",
    title: "the clock of one process after the other is ten minutes ahead, then jumps back to ten minutes behind",
    isShort: true,
    run: (tools, count) =>
      during(
        tools,
        tools.send(count, (i) => ({ slowMs: 300, isPlan: i % 4 === 0 })),
        async () => {
          // One at a time: that is how far a cluster's clocks may differ.
          for (const name of ["task-execute-1", "llm-gateway", "plugin", "scope-gateway", "wake"] satisfies ProcessName[]) {
            for (const shiftMs of [SKEW_MS, -SKEW_MS, 0]) {
              tools.platform.processes[name].setClock(shiftMs);
              if (shiftMs !== 0) await delay(700);
            }
          }
        },
      ),
  },
  {
    id: "F-27",
    title: "everybody submits at once, to a process that has just begun",
    weight: 2,
    run: async (tools, count) => {
      tools.platform.processes["task-submit"].kill();
      await during(
        tools,
        tools.send(count, () => ({}), count),
        async () => {},
      );
    },
  },
  {
    id: "F-28",
    title: "cancels race with completions",
    isShort: true,
    weight: 2,
    run: (tools, count) =>
      during(
        tools,
        tools.send(count, () => ({ cancelAfterMs: tools.random.between(0, 900), deserves: { status: ["success", "cancelled"] } })),
        async () => {},
      ),
  },
  {
    id: "F-35",
    title: "SIGTERM to one process after the other, under load",
    isShort: true,
    weight: 2,
    run: (tools, count) =>
      during(
        tools,
        tools.send(count, (i) => ({ slowMs: 300, isPlan: i % 4 === 0 })),
        async () => {
          for (const name of ["task-execute-1", "plugin", "ticket-processor", "task-submit", "llm-gateway", "task-execute-2", "bridge"] satisfies ProcessName[]) {
            tools.platform.processes[name].terminate();
            await delay(1_500);
          }
        },
      ),
  },
  {
    id: "F-36",
    title: "everything is killed at once, and comes back in any order to what was left",
    isShort: true,
    weight: 2,
    run: (tools, count) =>
      during(
        tools,
        tools.send(count, (i) => ({ isPlan: i % 4 === 0 })),
        async () => {
          for (const process of Object.values(tools.platform.processes)) process.kill();
          await Promise.all([tools.platform.redis.crash(700), tools.platform.database.crash(300)]);
          await delay(LEASE_MS);
        },
      ),
  },
];
