/** One round: arm the points, submit tasks into them, and see every point hit. */
import { setTimeout as delay } from "node:timers/promises";
import type { Client, Job } from "./client.ts";
import type { FaultPlatform, ProcessName } from "./platform.ts";
import { describe, type Point } from "./points.ts";
import type { Random } from "./random.ts";
import type { Level } from "./records.ts";
import type { Erased, Fact } from "./records-around.ts";

export interface RoundTools {
  platform: FaultPlatform;
  client: Client;
  random: Random;
  say(line: string): void;
  times: Times;
  isShort: boolean;
  /** What scenarios looked at themselves, for I14. */
  levels: Level[];
  /** And for the others. */
  facts: Fact[];
  erased: Erased[];
}

export interface Times {
  /** What each task is given. */
  deadlineMs: number;
  /** What I1 allows after a deadline. */
  patienceMs: number;
}

/** Twice the lease that the platform ships with. */
export const TIMES: Times = { deadlineMs: 150_000, patienceMs: 60_000 };
/** Where a safeguard is missing, tasks may never end; nobody waits long for those. */
export const SHORT_TIMES: Times = { deadlineMs: 25_000, patienceMs: 10_000 };
/** Longer than a task's deadline: what passed a point by has to be over before the next wave comes. */
const POINT_PATIENCE_MS = 200_000;
const IN_FLIGHT = 20;
const MAX_WAVES = 5;
const LOOK_EVERY_MS = 100;

/** Resolves when every point was hit; `finished` of what it returns, when the callers know the end of their tasks. */
export async function runRound(tools: RoundTools, points: readonly Point[], count: number, label: string): Promise<{ finished: Promise<void> }> {
  const { platform, client, random, say } = tools;
  const arms = new Map<ProcessName, string[]>();
  const arm = (name: ProcessName, spec: string) => arms.set(name, [...(arms.get(name) ?? []), spec]);
  const hits: { point: Point; isHit: () => boolean }[] = [];
  for (const point of points) {
    const { fault } = point;
    if (fault.kind === "kill") {
      const before = platform.processes[fault.process].hits(fault.failpoint);
      arm(fault.process, `${fault.failpoint}:kill#1`);
      hits.push({ point, isHit: () => platform.processes[fault.process].hits(fault.failpoint) > before });
    }
    for (const [name, spec] of Object.entries(point.along ?? {})) arm(name as ProcessName, spec);
  }
  await Promise.all([...arms].map(([name, specs]) => platform.processes[name].arm(specs.join(","))));
  for (const point of points) {
    const { fault } = point;
    let isHit = false;
    const hit = () => {
      isHit = true;
    };
    if (fault.kind === "reply") void platform.postgres.loseNext(fault.statement, fault.variant).then(hit);
    else if (fault.kind === "torn reply") {
      void platform.api.tearNext(fault.method).then(() => {
        platform.processes[fault.process].kill();
        hit();
      });
    } else continue;
    hits.push({ point, isHit: () => isHit });
  }

  const slowMs = Math.max(0, ...points.map((point) => point.slowMs ?? 0));
  const isCancelled = points.some((point) => point.isCancelled);
  const isPlan = points.some((point) => point.isPlan);
  const wave = (number: number) =>
    Array.from(
      { length: count },
      (_, i): Job => ({
        marker: `${label}-${number}-${i}`,
        apiKey: platform.keys.unlimited,
        slowMs,
        isPlan,
        deadlineMs: tools.times.deadlineMs,
        isTwin: random.next() < 0.1,
        cancelAfterMs: isCancelled && random.next() < 0.7 ? random.between(0, 1_500) : undefined,
      }),
    );
  let waves = 0;
  let isQuiet = true;
  let finished = Promise.resolve();
  for (const { point, isHit } of hits) {
    await until(`a hit of ${describe(point)}`, () => {
      // Which executor gets a task, or which submits meet, is chance: a wave that passed a point by is followed by another.
      if (isQuiet && waves < MAX_WAVES && !isHit()) {
        isQuiet = false;
        finished = inTurns(wave(waves++), (job) => client.run(job)).finally(() => {
          isQuiet = true;
        });
      }
      return isHit();
    });
    say(describe(point));
  }
  for (const point of points) {
    if (point.fault.kind !== "race") continue;
    if (waves === 0) finished = inTurns(wave(waves++), (job) => client.run(job));
    await finished;
    say(describe(point));
  }
  // Points that slow or fail must not reach into the next round.
  const along = points.flatMap((point) => Object.keys(point.along ?? {})) as ProcessName[];
  await Promise.all([...new Set(along)].map((name) => platform.processes[name].arm("")));
  return { finished };
}

async function inTurns(jobs: readonly Job[], run: (job: Job) => Promise<void>): Promise<void> {
  const queue = [...jobs];
  const work = async () => {
    for (let job = queue.shift(); job; job = queue.shift()) await run(job);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
}

/** Every process answers and every task has ended; or the last deadline and the patience after it are over, and the auditor will say so. */
export async function untilAtRest({ platform, times }: Pick<RoundTools, "platform" | "times">): Promise<boolean> {
  await Promise.all(Object.values(platform.processes).map((process) => process.untilReady()));
  for (;;) {
    const { rows } = await platform.look.query<{ open: string; left_ms: string | null }>(
      "SELECT count(*) AS open, extract(epoch FROM max(deadline) - now()) * 1000 AS left_ms FROM tasks WHERE status IN ('queued', 'running', 'pending')",
    );
    const { open = "0", left_ms } = rows[0] ?? {};
    if (open === "0") return true;
    if (Number(left_ms) + times.patienceMs < 0) return false;
    await delay(LOOK_EVERY_MS);
  }
}

/**
 * The zombie: an executor is stopped with finished results in its hands and past its lease, another one takes its tasks over, and only then is
 * the first continued. Every write that it still makes must come to nothing.
 */
export async function runZombie(tools: RoundTools, count: number, label: string): Promise<void> {
  const { platform, client, say } = tools;
  const zombie = platform.processes["task-execute-1"];
  const before = zombie.hits("settle.before");
  await zombie.arm("settle.before:delay=500");
  const jobs = Array.from({ length: count }, (_, i): Job => ({ marker: `${label}-${i}`, apiKey: platform.keys.unlimited, slowMs: 1_500, deadlineMs: tools.times.deadlineMs }));
  const done = Promise.all(jobs.map((job) => client.run(job)));
  await until("the executor holds a result", () => zombie.hits("settle.before") > before);
  zombie.suspend();
  say("z1 task-execute-1: SIGSTOP with results that are not settled");
  await until("another executor has taken over", async () => {
    const { rows } = await platform.look.query<{ taken: string }>("SELECT count(*) AS taken FROM tasks WHERE status = 'running' AND attempt > 1 AND input->>'command' LIKE $1", [
      `[mark ${label}-%`,
    ]);
    return Number(rows[0]?.taken) > 0;
  });
  zombie.resume();
  say("z1 task-execute-1: SIGCONT after its lease, while another executor runs its tasks");
  await done;
  await untilAtRest(tools);
  await zombie.arm("");
}

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + POINT_PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`never came: ${what}`);
    await delay(40);
  }
}
