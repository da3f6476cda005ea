/** A whole fault run: the points, the zombie, the random faults, the scenarios, and the auditor's verdict. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { audit } from "./auditor.ts";
import { BREAKS, type Break } from "./breaks.ts";
import { runChaos } from "./chaos.ts";
import { openClient } from "./client.ts";
import { type Finding, holds, INVARIANTS } from "./invariants.ts";
import { compareLevels, measurePace, readLevels, untilRecovered } from "./levels.ts";
import { LEASE_MS, startFaultPlatform } from "./platform.ts";
import { inRounds, POINTS, type Point } from "./points.ts";
import { seeded } from "./random.ts";
import { type Records, readRecords } from "./records.ts";
import { ask } from "./redis-server.ts";
import { type RoundTools, runRound, runZombie, SHORT_TIMES, TIMES, untilAtRest } from "./rounds.ts";
import { SCENARIOS } from "./scenarios/index.ts";
import { toolsOf } from "./scenarios/scenario.ts";
import { keepTelling, repeats, untilTold } from "./told.ts";

export interface FaultRun {
  seed: number;
  isShort: boolean;
  broken: Break | null;
  /** Only points and scenarios whose id or failpoint contains one of these; `chaos` and `zombie` are names too. */
  only: readonly string[];
}

const FULL = { tasksPerPoint: 20, zombieTasks: 20, chaos: { tasks: 500, spreadMs: 120_000 }, scenarioTasks: 1_000 };
const SHORT = { tasksPerPoint: 10, zombieTasks: 6, chaos: { tasks: 60, spreadMs: 14_000 }, scenarioTasks: 200 };

/** True when every invariant holds. The folder with all records and logs stays when one does not. */
export async function runFaults({ seed, isShort, broken, only }: FaultRun, print: (line: string) => void): Promise<boolean> {
  const startedAt = performance.now();
  const seconds = () => ((performance.now() - startedAt) / 1000).toFixed(1).padStart(6);
  const say = (line: string) => print(`${seconds()} s  ${line}`);
  // The client draws whenever an answer is late, a round when it needs another wave; the schedule of faults must not hang on that.
  const random = seeded(seed);
  const clientRandom = seeded(seed + 1);
  const size = isShort ? SHORT : FULL;
  const safeguard = broken && BREAKS[broken];
  // What shows the break, and nothing else.
  const wanted = safeguard ? [safeguard.shows] : only;
  const times = safeguard ? SHORT_TIMES : TIMES;
  // Pace and leaks are compared with what was before; nothing else needs that.
  const isMeasured = safeguard === null || safeguard.turnsRed === "I13" || safeguard.turnsRed === "I14";
  const isWanted = (...names: string[]) => wanted.length === 0 || wanted.some((part) => names.some((name) => name.includes(part)));
  const folder = mkdtempSync(join(tmpdir(), "aau-faults-"));
  print(`seed ${seed}${isShort ? ", short form" : ""}${broken ? `, ${safeguard?.turnsRed} broken on purpose: ${safeguard?.what}` : ""}`);
  const platform = await startFaultPlatform({ folder, broken });
  let isGood = false;
  // What goes on beside the run, and would keep the process alive after a run that broke off.
  const beside: (() => unknown)[] = [];
  try {
    say(`the platform runs: lease ${LEASE_MS} ms, records and logs in ${folder}`);
    const client = openClient({
      url: platform.api.url,
      journalFile: platform.sources.journalFile,
      random: clientRandom,
      patienceMs: times.patienceMs,
      tenantOf: platform.tenants.tenantOf,
    });
    beside.push(client.giveUp);
    const tools: RoundTools = { platform, client, random, say, times, isShort, levels: [], facts: [], erased: [] };

    // Pools grow to what the scenarios need, so that growth after that is a leak.
    if (isMeasured) await measurePace(client, platform, "warm", { tasks: 60, inFlight: 40 });
    const beforeMs = isMeasured ? await measurePace(client, platform, "pace-before") : 0;
    await untilAtRest(tools);
    const before = await readLevels(platform);

    const stopForgetting = forgetCircuits(platform.redis.url);
    const stopTelling = keepTelling(platform);
    beside.push(stopForgetting, stopTelling);
    const points = POINTS.filter(
      (point) =>
        !(isShort && point.isLong && wanted.length === 0) &&
        isWanted(point.id, point.fault.kind === "kill" ? point.fault.failpoint : point.fault.kind === "reply" ? point.fault.statement : point.fault.kind),
    );
    const rounds: Point[][] = isShort ? inRounds(points) : points.map((point) => [point]);
    const open: Promise<void>[] = [];
    for (const [i, round] of rounds.entries()) {
      const { finished } = await runRound(tools, round, size.tasksPerPoint, `point-${i}`);
      // The short form lets the tail of a round run into the next one.
      if (isShort) open.push(finished);
      else {
        await finished;
        await untilAtRest(tools);
      }
    }
    stopTelling();
    if (wanted.includes("twins")) await runTwins(tools, size.tasksPerPoint);
    if (isWanted("zombie")) await runZombie(tools, size.zombieTasks, "zombie");
    await Promise.all(open);
    // The full form's chaos meets circuits as they are; the short form has no minute to wait for one.
    if (!isShort) await stopForgetting();
    if (isWanted("chaos")) await runChaos({ ...tools, random: seeded(seed + 2) }, size.chaos);
    await stopForgetting();
    const scenarios = SCENARIOS.filter((scenario) => isWanted(scenario.id) && (!isShort || scenario.isShort || wanted.length > 0));
    const share = size.scenarioTasks / SCENARIOS.reduce((sum, { weight = 1 }) => sum + weight, 0);
    for (const scenario of scenarios) {
      say(`${scenario.id} ${scenario.title}`);
      await scenario.run(toolsOf(tools, scenario), Math.ceil(share * (scenario.weight ?? 1)));
      await untilAtRest(tools);
    }
    await untilAtRest(tools);
    if (!(await untilTold(tools))) say("there are receivers that were not told everything");
    const pace = isMeasured && safeguard?.turnsRed !== "I14" ? await untilRecovered(client, platform, beforeMs) : null;
    if (pace)
      say(
        `95th percentile from submit to done: ${Math.round(pace.beforeMs)} ms before, ${Math.round(pace.afterMs)} ms ${pace.recoveredAfterSec?.toFixed(1) ?? "over 60"} s after the last fault`,
      );
    await untilTold(tools);
    const levels = isMeasured && safeguard?.turnsRed !== "I13" ? [...tools.levels, ...(await compareLevels(platform, before))] : [];
    client.giveUp();

    const records = await readRecords(platform.sources, { pace, levels, endpoints: [...platform.receivers.endpoints], erased: tools.erased, facts: tools.facts });
    const findings = audit(records, { leaseMs: TIMES.patienceMs / 2 });
    isGood = holds(findings);
    say("at rest; what the auditor finds:");
    print(table(findings));
    const { told, again } = repeats(tools);
    print(`  webhooks: ${told} events told to endpoints that are well, ${again} of them again`);
    print(
      summary(
        records,
        Object.values(platform.processes).reduce((sum, { restarts }) => sum + restarts, 0),
      ),
    );
  } finally {
    for (const stop of beside) stop();
    await platform.stop();
    if (isGood) rmSync(folder, { recursive: true, force: true });
  }
  print(`${isGood ? "Every invariant holds" : `NOT every invariant holds; the records are in ${folder}`}. Seed ${seed}, ${seconds().trim()} s.`);
  return isGood;
}

/**
 * While points are visited, a plugin is killed again and again, and its circuit would open: rightly, since that is what it is for. But then every
 * task waits in the queue for a minute, where it meets no point, and a run would spend its time waiting. What an open circuit does to tasks is
 * looked at where faults come as they do in life: in the scenarios, and in the full form's chaos.
 */
function forgetCircuits(redisUrl: string): () => Promise<void> {
  const forget = () =>
    ask(redisUrl, async (redis) => {
      const keys = await redis.keys("circuit:*");
      if (keys.length > 0) await redis.del(...keys);
    }).catch(() => {});
  const timer = setInterval(() => void forget(), 300);
  return () => {
    clearInterval(timer);
    return forget();
  };
}

/** Two submits at once with one key, over and over. */
async function runTwins({ client, platform }: RoundTools, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await client.run({ marker: `twin-${i}`, apiKey: platform.keys.unlimited, isTwin: true, deadlineMs: 60_000 });
}

const MAX_SHOWN = 8;

function table(findings: readonly Finding[]): string {
  return findings
    .flatMap(({ invariant, checked, violations }) => [
      `  ${invariant}  ${String(checked).padStart(6)} checks  ${String(violations.length).padStart(4)} violations  ${INVARIANTS[invariant]}`,
      ...violations.slice(0, MAX_SHOWN).map((violation) => `        ${violation}`),
      ...(violations.length > MAX_SHOWN ? [`        … and ${violations.length - MAX_SHOWN} more`] : []),
    ])
    .join("\n");
}

function summary({ tasks, calls, ledger, journal }: Records, restarts: number): string {
  const tally = (values: readonly string[]) => {
    const counts = new Map<string, number>();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts]
      .sort()
      .map(([value, count]) => `${count} ${value}`)
      .join(", ");
  };
  const failures = tasks.flatMap(({ status, error_code }) => (status === "failed" ? [error_code ?? "no code"] : []));
  const submits = journal.filter(({ op, outcome }) => op === "submit" && outcome !== "invoke");
  return [
    `  tasks: ${tally(tasks.map(({ status }) => status))}${failures.length > 0 ? ` (failures: ${tally(failures)})` : ""}; attempts: ${tally(tasks.map(({ attempt }) => String(attempt)).map((n) => `× ${n}`))}`,
    `  submits: ${tally(submits.map(({ outcome }) => outcome))}; model calls: ${tally(calls.map(({ state }) => state))}; in the ledger: ${ledger.length}; processes started again: ${restarts}`,
  ].join("\n");
}
