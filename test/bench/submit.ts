/** (a) How many submits a second one instance takes, beside the floor, in alternating rounds. */
import { median, millis, quantile, ratio, table, whole } from "./figures.ts";
import noop from "./functions/plugins/bench-noop/bench-noop.ts";
import { badOf, describeBad } from "./load.ts";
import type { LoadJob, LoadReport } from "./load-job.ts";
import type { Started } from "./node-process.ts";
import type { Part } from "./part.ts";
import type { Stage } from "./stage.ts";

const CONNECTIONS = 32;
const ROUNDS = Number(process.env.AAU_BENCH_ROUNDS ?? 5);
const WARM_MS = 3_000;
const ROUND_MS = 4_000;
const COMMAND = "Review this change for security problems";
export const TARGET = 0.6;

interface Contender {
  name: string;
  url: string;
  body: Record<string, string>;
  /** Rows that it has written. */
  rows: string;
  process: Started;
}

/** Microseconds of processor time for each request. */
interface Spent {
  processes: number;
  postgres: number;
  redis: number;
}

function jobOf(stage: Stage, { url, body }: Contender, durationMs: number): LoadJob {
  return {
    url,
    method: "POST",
    connections: CONNECTIONS,
    durationMs,
    requests: stage.tenants.map(({ key }) => ({ path: "/v1/tasks", headers: { authorization: `Bearer ${key}`, "content-type": "application/json" }, body: JSON.stringify(body) })),
    expect: { status: 202, contains: '"status":"queued"' },
  };
}

export const submit: Part = {
  letter: "a",
  title: `async submit, ${CONNECTIONS} connections, ${ROUNDS} rounds of ${ROUND_MS / 1000} s each in turn`,

  async run(stage, print) {
    await stage.bundle(["task-submit"]);
    const floor = await stage.start("submit-floor");
    const ours = await stage.start("task-submit");
    await stage.register(noop, "http://127.0.0.1:9");
    const contenders: Contender[] = [
      { name: "floor", url: floor.url, body: { command: COMMAND, plugin: noop.name }, rows: "floor_tasks", process: floor },
      { name: "plugin named", url: ours.url, body: { command: COMMAND, plugin: noop.name }, rows: "tasks", process: ours },
      { name: "natural command, route cached", url: ours.url, body: { command: COMMAND }, rows: "tasks", process: ours },
    ];
    const lost: string[] = [];
    const spent = new Map<Contender, Spent[]>(contenders.map((contender) => [contender, []]));
    const reports = new Map<Contender, LoadReport[]>(contenders.map((contender) => [contender, []]));

    async function round(contender: Contender, durationMs: number): Promise<LoadReport> {
      await stage.clear();
      const meter = await stage.meter([contender.process]);
      const report = await stage.load.run(jobOf(stage, contender, durationMs));
      const used = await meter();
      const each = (ms: number) => (ms * 1000) / report.good;
      spent.get(contender)?.push({ processes: each(used.processes), postgres: each(used.postgres), redis: each(used.redis) });
      if (badOf(report) > 0) lost.push(`${contender.name}: ${describeBad(report)}`);
      const { rows } = await stage.db.query(`SELECT count(*)::int AS count FROM ${contender.rows}`);
      if (rows[0].count !== report.good) lost.push(`${contender.name}: ${report.good} were accepted and ${rows[0].count} rows are there`);
      return report;
    }

    for (const contender of contenders) await round(contender, WARM_MS);
    for (let i = 0; i < ROUNDS; i++) for (const contender of contenders) reports.get(contender)?.push(await round(contender, ROUND_MS));

    const rates = contenders.map((contender) => (reports.get(contender) ?? []).map((report) => report.good / report.seconds));
    const floorRate = median(rates[0] ?? []);
    const rows = contenders.map((contender, i) => {
      const all = reports.get(contender) ?? [];
      const at = (q: number) => millis(median(all.map((report) => quantile(report.answered, q))));
      // Each round beside the floor's round of the same turn: trouble on the machine meets both.
      const ratios = (rates[i] ?? []).map((rate, turn) => rate / (rates[0]?.[turn] ?? Number.NaN));
      const spread = `${whole(Math.min(...(rates[i] ?? [])))}–${whole(Math.max(...(rates[i] ?? [])))}`;
      return [
        contender.name,
        `${whole(median(rates[i] ?? []))}/s`,
        spread,
        ratio(median(rates[i] ?? []) / floorRate),
        ratio(median(ratios)),
        at(0.5),
        at(0.99),
        ...(["processes", "postgres", "redis"] as const).map((part) => whole(median((spent.get(contender) ?? []).slice(1).map((each) => each[part])))),
      ];
    });
    print(table(["", "median", "rounds", "of floor", "by turns", "p50", "p99", "node µs", "pg µs", "redis µs"], rows));
    print(
      `  target: ${TARGET} of the floor. µs: processor time for each request. Memory at most: floor ${whole(floor.peakKib() / 1024)} MiB, task-submit ${whole(ours.peakKib() / 1024)} MiB.`,
    );
    await floor.stop();
    await ours.stop();
    return lost;
  },
};
