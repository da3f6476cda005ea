/** PostgreSQL gone, silent, full, deadlocked: refused with "try again", or done once. */
import pg from "pg";
import { LEASE_MS } from "../platform.ts";
import plugin from "../plugin.ts";
import { runZombie } from "../rounds.ts";
import { delay, during, type Scenario } from "./scenario.ts";

export const POSTGRES_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-10",
    title: "PostgreSQL stops at once and recovers from its log, twice",
    isShort: true,
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        for (let i = 0; i < 2; i++) {
          // Callers have been told of some of their tasks by then.
          await delay(700);
          await tools.platform.database.crash(500);
        }
      }),
  },
  {
    id: "F-11",
    title: "answers to commits are lost, after they took place and before",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        for (const statement of ["admit_task", "claim_task", "settle_task", "open_llm_call", "close_llm_call"]) {
          for (const variant of ["committed", "lost"] as const) await Promise.race([tools.platform.postgres.loseNext(statement, variant), delay(1_500)]);
        }
        tools.platform.postgres.calm();
      }),
  },
  {
    id: "F-12",
    title: "an executor is stopped past its lease and continued",
    run: (tools, count) => runZombie(tools, count, "f12-zombie"),
  },
  {
    id: "F-14",
    title: "no connection is left for a new process",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        const held: pg.Client[] = [];
        const take = async () => {
          const client = new pg.Client({ connectionString: tools.platform.database.url });
          client.on("error", () => {});
          try {
            await client.connect();
            held.push(client);
            return true;
          } catch {
            return false;
          }
        };
        while (await take());
        tools.platform.processes["task-submit"].kill();
        tools.platform.processes["task-execute-1"].kill();
        await delay(3_000);
        await Promise.all(held.map((client) => client.end()));
      }),
  },
  {
    id: "F-15",
    title: "settlements deadlock with somebody who locks in the other order",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        for (let i = 0; i < 4; i++) {
          const client = await tools.platform.look.connect();
          try {
            await client.query("BEGIN");
            await client.query("UPDATE usage_periods SET used = used WHERE plugin_name = $1", [plugin.name]);
            await delay(400);
            await client.query("UPDATE tasks SET priority = priority WHERE status = 'running'");
            await client.query("COMMIT");
          } catch {
            // This side was the victim.
            await client.query("ROLLBACK").catch(() => {});
          } finally {
            client.release();
          }
          await delay(300);
        }
      }),
  },
  {
    id: "F-40",
    title: "an executor's event loop is blocked past its lease",
    run: async (tools, count) => {
      const executor = tools.platform.processes["task-execute-1"];
      await executor.arm(`execute.before_plugin:block=${LEASE_MS * 2}#2`);
      await during(tools, tools.send(count), async () => {});
      await executor.arm("");
    },
  },
];
