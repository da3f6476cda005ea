/** What must not grow over a run: sockets of processes, sessions of PostgreSQL, entries of streams; and how fast tasks are. */
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "./client.ts";
import type { FaultPlatform } from "./platform.ts";
import type { Level, Pace } from "./records.ts";
import { ask } from "./redis-server.ts";

export type Levels = ReadonlyMap<string, number>;

/** Connections that a pool may keep beyond those that it had open when the first look was taken. */
const POOL_SLACK = 12;
/** What may be on its way at any moment. */
const IN_PASSING: Readonly<Record<string, number>> = { "idle in transaction": 0, "stream entries": 0, "pending entries": 0, "entries to retry": 0 };

export async function readLevels({ processes, look, redis }: FaultPlatform): Promise<Levels> {
  const levels = new Map<string, number>();
  for (const { name, pid } of Object.values(processes)) levels.set(`sockets of ${name}`, pid === undefined ? 0 : socketsOf(pid));
  const { rows } = await look.query<{ sessions: string; idle: string }>(
    "SELECT count(*) AS sessions, count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '2 seconds') AS idle FROM pg_stat_activity WHERE backend_type = 'client backend'",
  );
  levels.set("sessions of PostgreSQL", Number(rows[0]?.sessions));
  levels.set("idle in transaction", Number(rows[0]?.idle));
  await ask(redis.url, async (client) => {
    let entries = 0;
    let pending = 0;
    for (const stream of (await client.keys("stream:*")).filter((key) => key !== "stream:dead")) {
      entries += await client.xlen(stream);
      const summary = await client.xpending(stream, "bridge").catch(() => [0]);
      pending += Number(summary[0] ?? 0);
    }
    let retries = 0;
    for (const set of await client.keys("retry:*")) retries += await client.zcard(set);
    levels.set("stream entries", entries).set("pending entries", pending).set("entries to retry", retries);
  });
  return levels;
}

function socketsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  let count = 0;
  for (const fd of readdirSync(folder)) {
    try {
      if (readlinkSync(`${folder}/${fd}`).startsWith("socket:")) count += 1;
    } catch {
      // Closed meanwhile.
    }
  }
  return count;
}

/** Looks again for a while: what is on its way gets the time to arrive. */
export async function compareLevels(platform: FaultPlatform, before: Levels): Promise<Level[]> {
  const until = performance.now() + 30_000;
  for (;;) {
    const after = await readLevels(platform);
    const levels = [...after].map(([what, count]): Level => {
      const was = before.get(what) ?? 0;
      return { what, before: was, after: count, limit: IN_PASSING[what] ?? was + POOL_SLACK };
    });
    if (levels.every((level) => level.after <= level.limit) || performance.now() > until) return levels;
    await delay(500);
  }
}

const SAMPLE = 20;
const PACE_PATIENCE_MS = 20_000;
/** What I13 gives. */
const RECOVERY_SEC = 60;

/** 95th percentile in ms of some tasks, a few at a time. */
export async function measurePace(client: Client, platform: FaultPlatform, label: string, { tasks, inFlight } = { tasks: SAMPLE, inFlight: 4 }): Promise<number> {
  const times: number[] = [];
  const jobs = Array.from({ length: tasks }, (_, i) => i);
  const work = async () => {
    for (let i = jobs.shift(); i !== undefined; i = jobs.shift()) {
      const startedAt = performance.now();
      // One that never ends took as long as anybody waits.
      const ended = client.run({ marker: `${label}-${i}`, apiKey: platform.keys.unlimited, deadlineMs: 60_000, deserves: { status: ["success"] } });
      await Promise.race([ended, delay(PACE_PATIENCE_MS, undefined, { ref: false })]);
      times.push(performance.now() - startedAt);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  times.sort((a, b) => a - b);
  return times[Math.floor(times.length * 0.95)] ?? Number.POSITIVE_INFINITY;
}

export async function untilRecovered(client: Client, platform: FaultPlatform, beforeMs: number): Promise<Pace> {
  const healedAt = performance.now();
  for (let round = 0; ; round++) {
    const afterMs = await measurePace(client, platform, `pace-after-${round}`);
    const sec = (performance.now() - healedAt) / 1000;
    if (afterMs <= 2 * beforeMs) return { beforeMs, afterMs, recoveredAfterSec: sec };
    if (sec > RECOVERY_SEC) return { beforeMs, afterMs, recoveredAfterSec: null };
  }
}
