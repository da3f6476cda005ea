/** (c) Ten thousand tasks at once, of a plugin that waits two seconds: nothing may be lost, and memory must stay bounded. */
import { readFileSync } from "node:fs";
import { publicId } from "../../shared/ids.ts";
import { mebi, millis, quantile, table, whole } from "./figures.ts";
import wait from "./functions/plugins/bench-wait/bench-wait.ts";
import { badOf, describeBad } from "./load.ts";
import type { Part } from "./part.ts";

const TASKS = 10_000;
const CONNECTIONS = 64;
/** An executor holds two sockets for each task, and may not have more than the system lets it open. */
const MOST_OPEN = Math.min(TASKS, Math.floor(openFilesLimit() / 2) - 500);
/** As `wake` declares. */
const WAKE_MS = 15_000;
const PATIENCE_MS = 180_000;

function openFilesLimit(): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
  return Number(soft ?? 4096);
}

export const inFlight: Part = {
  letter: "c",
  title: `${whole(TASKS)} tasks in flight at once, each waiting 2 s; one executor, at most ${whole(MOST_OPEN)} events delivered at a time`,

  async run(stage, print) {
    await stage.bundle(["task-submit", "task-poll", "task-execute", "bridge", "wake", "bench-wait"]);
    const plugin = await stage.start("bench-wait");
    await stage.register(wait, plugin.url);
    await stage.clear();
    const execute = await stage.start("task-execute", {
      // Ten thousand claims come at once: they wait for their turn, and a heartbeat every 20 s is enough for work of 2 s.
      DATABASE_WAIT_MS: "60000",
      TASK_LEASE_MS: "120000",
    });
    const submit = await stage.start("task-submit");
    const poll = await stage.start("task-poll");
    const bridge = await stage.start("bridge", { FUNCTION_URLS: `task-execute=${execute.url}`, BRIDGE_IN_FLIGHT: String(MOST_OPEN) });
    // What PingSource does in the cluster: rings again for what PostgreSQL says is due.
    const wake = await stage.start("wake");
    const ring = () =>
      fetch(wake.url, { method: "POST", headers: { authorization: `Bearer ${stage.env.SERVICE_TOKEN}` } }).then(
        (answer) => answer.arrayBuffer(),
        () => {},
      );
    const ringing = setInterval(ring, WAKE_MS);
    const lost: string[] = [];
    const startedAt = performance.now();
    let peakRunning = 0;
    let peakOpen = 0;
    let over = 0;
    const look = async () => {
      const { rows } = await stage.db.query(
        "SELECT count(*) FILTER (WHERE status = 'running')::int AS running, count(*) FILTER (WHERE status IN ('queued', 'running'))::int AS open, count(*) FILTER (WHERE status = 'success')::int AS done FROM tasks",
      );
      peakRunning = Math.max(peakRunning, rows[0].running);
      peakOpen = Math.max(peakOpen, rows[0].open);
      over = rows[0].done;
    };
    const watching = new AbortController();
    const watch = (async () => {
      while (!watching.signal.aborted && performance.now() - startedAt < PATIENCE_MS) {
        await look();
        if (over >= TASKS) break;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    })();
    const requests = stage.tenants.map(({ key }) => ({
      path: "/v1/tasks",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ command: "Wait", plugin: wait.name }),
    }));
    const report = await stage.load.run({ url: submit.url, method: "POST", connections: CONNECTIONS, count: TASKS, requests, expect: { status: 202 } });
    if (badOf(report) > 0) {
      lost.push(describeBad(report));
      watching.abort();
    }
    await watch;
    clearInterval(ringing);
    const allDoneS = (performance.now() - startedAt) / 1000;

    const { rows } = await stage.db.query("SELECT id, tenant_id, attempt FROM tasks WHERE status = 'success'");
    if (rows.length !== TASKS) lost.push(`${report.good} tasks were accepted, ${rows.length} ended with success`);
    const keys = new Map(stage.tenants.map(({ tenantId, key }) => [tenantId, key]));
    const polls = rows.map((row) => ({ path: `/v1/tasks/${publicId("task", row.id)}`, headers: { authorization: `Bearer ${keys.get(row.tenant_id)}` } }));
    const seen = await stage.load.run({
      url: poll.url,
      method: "GET",
      connections: 32,
      count: polls.length,
      requests: polls,
      expect: { status: 200, contains: '"status":"success"' },
    });
    if (seen.good !== TASKS) lost.push(`the client saw ${seen.good} of ${TASKS} results: ${describeBad(seen)}`);
    const again = rows.filter((row) => row.attempt > 1).length;

    print(
      table(
        ["", "", ""],
        [
          ["accepted", whole(report.good), `${whole(report.good / report.seconds)}/s, p99 ${millis(quantile(report.answered, 0.99))}`],
          ["open at once, most", whole(peakOpen), `running at once, most: ${whole(peakRunning)}`],
          ["ended with success", whole(rows.length), `after ${allDoneS.toFixed(1)} s; ${whole(again)} took more than one attempt`],
          ["results seen by the client", whole(seen.good), `${whole(seen.good / seen.seconds)} polls/s`],
        ],
      ),
    );
    const processes = [submit, poll, bridge, execute, plugin];
    print(`  memory at most: ${processes.map((process) => `${process.name} ${mebi(process.peakKib())}`).join(", ")}, redis ${mebi(stage.redisPeakKib())}`);
    for (const process of [wake, bridge, execute, submit, poll, plugin]) await process.stop();
    return lost;
  },
};
