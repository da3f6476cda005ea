/** (b) From the submit to the result of a task that does nothing: all that is left is the platform. */
import { median, millis, quantile, ratio, table, whole } from "./figures.ts";
import noop from "./functions/plugins/bench-noop/bench-noop.ts";
import { badOf, describeBad } from "./load.ts";
import type { LoadJob, LoadReport } from "./load-job.ts";
import type { Started } from "./node-process.ts";
import type { Part } from "./part.ts";
import type { Stage } from "./stage.ts";

const TASKS = 2_000;
const IN_FLIGHT = 32;
/** V8 goes on compiling for so many: a process's first thousands of tasks cost two to three times what the later ones do. */
const WARM_TASKS = 3_000;
const ROUNDS = Number(process.env.AAU_BENCH_ROUNDS ?? 3);

interface Contender {
  name: string;
  job: Pick<LoadJob, "url" | "expect" | "untilDone">;
  headers: Record<string, string>;
  rows: string;
  processes: readonly Started[];
}

async function jobOf(stage: Stage, contender: Contender, count: number): Promise<LoadReport> {
  return stage.load.run({
    ...contender.job,
    method: "POST",
    connections: IN_FLIGHT,
    count,
    requests: stage.tenants.map(({ key }, i) => ({
      path: "/v1/tasks",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...contender.headers },
      body: JSON.stringify({ command: `Do nothing, number ${i}`, plugin: noop.name }),
    })),
  });
}

export const chain: Part = {
  letter: "b",
  title: `submit → done, ${whole(TASKS)} no-op tasks, ${IN_FLIGHT} in flight, ${ROUNDS} rounds each in turn`,

  async run(stage, print) {
    await stage.bundle(["task-submit", "task-poll", "task-execute", "bridge", "bench-noop"]);
    const floor = [await stage.start("submit-floor"), await stage.start("chain-execute")];
    floor.push(await stage.start("chain-bridge", { TARGET: `${floor[1]?.url}/` }));
    const plugin = await stage.start("bench-noop");
    await stage.register(noop, plugin.url);
    const execute = await stage.start("task-execute");
    const submit = await stage.start("task-submit");
    const poll = await stage.start("task-poll");
    const bridge = await stage.start("bridge", { FUNCTION_URLS: `task-execute=${execute.url}` });
    const ours = [submit, poll, bridge, execute, plugin];
    const contenders: Contender[] = [
      {
        name: "floor chain",
        job: { url: floor[0]?.url ?? "", expect: { status: 202 }, untilDone: { by: "stream", redisUrl: stage.env.REDIS_URL ?? "", stream: "floor:results" } },
        headers: {},
        rows: "floor_tasks",
        processes: floor,
      },
      { name: "Prefer: wait", job: { url: submit.url, expect: { status: 200, contains: '"status":"success"' } }, headers: { prefer: "wait=25" }, rows: "tasks", processes: ours },
      { name: "202, then long poll", job: { url: submit.url, expect: { status: 202 }, untilDone: { by: "poll", url: poll.url } }, headers: {}, rows: "tasks", processes: ours },
    ];
    const lost: string[] = [];
    /** Processor time of each part, in µs a task, one entry a round. */
    const spent = new Map<Contender, Map<string, number[]>>(contenders.map((contender) => [contender, new Map()]));
    const reports = new Map<Contender, LoadReport[]>(contenders.map((contender) => [contender, []]));

    async function round(contender: Contender, count: number): Promise<LoadReport> {
      await stage.clear();
      const meters = await Promise.all([stage.meter([]), ...contender.processes.map((process) => stage.meter([process]))]);
      const report = await jobOf(stage, contender, count);
      const [servers, ...own] = await Promise.all(meters.map((read) => read()));
      const parts: [string, number][] = contender.processes.map((process, i) => [process.name, own[i]?.processes ?? 0]);
      parts.push(["postgres", servers?.postgres ?? 0], ["redis", servers?.redis ?? 0]);
      parts.push(["in all", parts.reduce((sum, [, ms]) => sum + ms, 0)]);
      const kept = spent.get(contender);
      for (const [part, ms] of parts) kept?.set(part, [...(kept.get(part) ?? []), (ms * 1000) / count]);
      if (badOf(report) > 0) lost.push(`${contender.name}: ${describeBad(report)}`);
      const { rows } = await stage.db.query(`SELECT count(*)::int AS count FROM ${contender.rows} WHERE status = 'success'`);
      if (report.good !== count || rows[0].count !== count)
        lost.push(`${contender.name}: of ${count} tasks the client saw ${report.good} results, PostgreSQL holds ${rows[0].count}`);
      return report;
    }

    for (const contender of contenders) await round(contender, WARM_TASKS);
    for (let i = 0; i < ROUNDS; i++) for (const contender of contenders) reports.get(contender)?.push(await round(contender, TASKS));

    const rates = contenders.map((contender) => (reports.get(contender) ?? []).map((report) => report.good / report.seconds));
    const rows = contenders.map((contender, i) => {
      const all = reports.get(contender) ?? [];
      const isAsync = contender.job.untilDone !== undefined;
      const submitted = (q: number) => (isAsync ? millis(median(all.map((report) => quantile(report.answered, q)))) : "–");
      const done = (q: number) => millis(median(all.map((report) => quantile(isAsync ? report.done : report.answered, q))));
      const seen = all.reduce((sum, report) => sum + report.good, 0);
      const own = rates[i] ?? [];
      // Each round beside the floor's round of the same turn: trouble on the machine meets both.
      const turns = own.map((rate, turn) => rate / (rates[0]?.[turn] ?? Number.NaN));
      return [
        contender.name,
        `${whole(median(own))}/s`,
        ratio(median(own) / median(rates[0] ?? [])),
        ratio(median(turns)),
        submitted(0.5),
        submitted(0.99),
        done(0.5),
        done(0.99),
        `${whole(seen)} of ${whole(TASKS * ROUNDS)}`,
      ];
    });
    print(table(["", "median", "of floor", "by turns", "submit p50", "p99", "done p50", "p99", "results"], rows));
    print(`  target: 600 tasks/s where the floor chain does 620. Memory at most: ${ours.map((p) => `${p.name} ${whole(p.peakKib() / 1024)}`).join(", ")} MiB.`);
    // The first round warmed up.
    const used = (contender: Contender) => [...(spent.get(contender) ?? [])].map(([part, each]) => `${part} ${whole(median(each.slice(1)))}`).join(", ");
    for (const contender of contenders) print(`  processor time a task in µs, median; ${contender.name}: ${used(contender)}`);
    for (const process of [...floor, ...ours].reverse()) await process.stop();
    return lost;
  },
};
