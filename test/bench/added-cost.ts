/** One kind of task beside another on the same processes, in turn: what the second costs more than the first. */
import { median, millis, quantile, ratio, table, whole } from "./figures.ts";
import { badOf, describeBad } from "./load.ts";
import type { LoadReport } from "./load-job.ts";
import type { Started } from "./node-process.ts";
import type { BenchTenant, Stage } from "./stage.ts";

export const TASKS = Number(process.env.AAU_BENCH_TASKS ?? 1_000);
export const ROUNDS = Number(process.env.AAU_BENCH_ROUNDS ?? 3);
/** One at a time shows what a task waits for; many at once what it costs. */
const IN_FLIGHT = [1, 16];
const WARM_TASKS = 200;

export interface Kind {
  name: string;
  /** Of the n-th tenant. */
  body(n: number): Record<string, unknown>;
}

/** The first kind is what the others are held against. Every result has to be a success. */
export async function compare(stage: Stage, print: (text: string) => void, submit: Started, tenants: readonly BenchTenant[], kinds: readonly Kind[]): Promise<string[]> {
  const lost: string[] = [];
  const round = async (kind: Kind, connections: number, count: number): Promise<LoadReport> => {
    const report = await stage.load.run({
      url: submit.url,
      method: "POST",
      connections,
      count,
      expect: { status: 200, contains: '"status":"success"' },
      requests: tenants.map(({ key }, n) => ({
        path: "/v1/tasks",
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json", prefer: "wait=25" },
        body: JSON.stringify(kind.body(n)),
      })),
    });
    if (badOf(report) > 0) lost.push(`${kind.name}: ${describeBad(report)}`);
    return report;
  };

  const rows: string[][] = [];
  for (const kind of kinds) await round(kind, Math.max(...IN_FLIGHT), Math.min(WARM_TASKS, TASKS));
  for (const connections of IN_FLIGHT) {
    const reports = new Map<Kind, LoadReport[]>(kinds.map((kind) => [kind, []]));
    const count = connections === 1 ? Math.ceil(TASKS / 4) : TASKS;
    for (let i = 0; i < ROUNDS; i++) for (const kind of kinds) reports.get(kind)?.push(await round(kind, connections, count));
    const rateOf = (kind: Kind | undefined) => median((kind ? (reports.get(kind) ?? []) : []).map(({ good, seconds }) => good / seconds));
    const timeOf = (kind: Kind, q: number) => median((reports.get(kind) ?? []).map(({ answered }) => quantile(answered, q)));
    for (const kind of kinds) {
      const rate = rateOf(kind);
      rows.push([`${kind.name}, ${connections} in flight`, `${whole(rate)}/s`, ratio(rate / rateOf(kinds[0])), millis(timeOf(kind, 0.5)), millis(timeOf(kind, 0.99))]);
    }
  }
  print(table(["", "median", `of ${kinds[0]?.name}`, "p50", "p99"], rows));
  return lost;
}

/** All that carries tasks out, with these plugins; `stop` ends them in the order that loses nothing. */
export async function startChain(stage: Stage, plugins: readonly string[]): Promise<{ submit: Started; urls: Map<string, string>; stop(): Promise<void> }> {
  await stage.bundle(["task-submit", "task-execute", "history-summarise", "bridge", ...plugins]);
  const running: Started[] = [];
  const start = async (...args: Parameters<Stage["start"]>) => {
    const started = await stage.start(...args);
    running.push(started);
    return started;
  };
  const stop = async () => {
    for (const process of running.reverse()) await process.stop();
  };
  try {
    const urls = new Map<string, string>();
    for (const name of plugins) urls.set(name, (await start(name)).url);
    const execute = await start("task-execute");
    const summarise = await start("history-summarise");
    const submit = await start("task-submit");
    await start("bridge", { FUNCTION_URLS: `task-execute=${execute.url},history-summarise=${summarise.url}` });
    return { submit, urls, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
