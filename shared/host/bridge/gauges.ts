/**
 * What must be known at all times, from the one process that never sleeps: a function at zero tells nothing, and its last word grows old.
 * Everything is read when Prometheus asks. Each bridge tells the same of the whole platform, so queries take the maximum.
 */
import type { Redis } from "ioredis";
import { sql } from "kysely";
import { Gauge } from "prom-client";
import * as v from "valibot";
import type { PlatformDb } from "../../db/database.ts";
import { lookAtCircuits } from "../../execution/circuit-breaker.ts";
import { tryRedis } from "../../redis/availability.ts";
import { CONSUMER_GROUP, DEAD_STREAM } from "../../redis/streams.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { retrySet } from "./stream-commands.ts";
import type { StreamConsumer } from "./stream-consumer.ts";

export interface Watched {
  redis: Redis;
  db: PlatformDb;
  consumers: ReadonlyMap<string, StreamConsumer>;
  metrics: Metrics;
}

const CIRCUIT_LEVEL = { closed: 0, half_open: 1, open: 2 } as const;
const TASKS = /^stream:(?:tasks|backlog):(.+)$/;

const Groups = v.array(v.pipe(v.array(v.unknown()), v.transform(pairs), v.looseObject({ name: v.string(), pending: v.number() })));
const OpenTasks = v.array(v.object({ plugin_name: v.nullable(v.string()), status: v.string(), count: v.number(), oldest_sec: v.number() }));
const Versions = v.array(v.object({ plugin: v.string(), version: v.string() }));

/** Adds the gauges; a store that is away leaves its own ones empty, so that nothing old is shown as new. */
export function exportGauges({ redis, db, consumers, metrics }: Watched): void {
  const registers = [metrics.registry];
  const gauge = (name: string, help: string, labelNames: string[], collect: (gauge: Gauge) => Promise<void> | void) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      async collect() {
        this.reset();
        await collect(this);
      },
    });

  gauge("aau_task_stream_depth", "Rings of a plugin's tasks that are not done yet, those that wait for another try included", ["plugin"], async (depth) => {
    for (const stream of consumers.keys()) {
      const plugin = TASKS.exec(stream)?.[1];
      const count = plugin === undefined ? null : await depthOf(redis, stream);
      if (plugin !== undefined && count !== null) depth.inc({ plugin }, count);
    }
  });
  gauge("aau_stream_depth", "Entries of the other streams that are not done yet", ["stream"], async (depth) => {
    for (const stream of consumers.keys()) {
      const count = TASKS.test(stream) ? null : await depthOf(redis, stream);
      if (count !== null) depth.set({ stream }, count);
    }
  });
  gauge("aau_stream_pending", "Entries that some bridge has taken and not acknowledged", ["stream"], async (pending) => {
    for (const stream of consumers.keys()) {
      const groups = await tryRedis(redis, (r) => r.xinfo("GROUPS", stream).catch(() => []));
      const own = groups === null ? undefined : v.parse(Groups, groups).find(({ name }) => name === CONSUMER_GROUP);
      if (own) pending.set({ stream }, own.pending);
    }
  });
  gauge("aau_stream_oldest_entry_seconds", "Age of the oldest entry that is not done", ["stream"], async (age) => {
    for (const stream of consumers.keys()) {
      const entries = await tryRedis(redis, (r) => r.xrange(stream, "-", "+", "COUNT", 1));
      if (entries === null) continue;
      const at = Number(entries[0]?.[0].split("-")[0]);
      age.set({ stream }, Number.isFinite(at) ? Math.max(0, (Date.now() - at) / 1000) : 0);
    }
  });
  gauge("aau_dead_letters", "Events that were buried", [], async (dead) => {
    const count = await tryRedis(redis, (r) => r.xlen(DEAD_STREAM));
    if (count !== null) dead.set(count);
  });
  gauge("aau_circuit_breaker_state", "Circuit of a plugin's version: 0 closed, 1 half-open, 2 open", ["plugin", "version"], async (circuits) => {
    const versions = await routableVersions(db).catch(() => []);
    const states = versions.length === 0 ? null : await lookAtCircuits(redis, versions);
    states?.forEach((state, i) => {
      const of = versions[i];
      if (of) circuits.set({ ...of }, CIRCUIT_LEVEL[state]);
    });
  });
  // Two gauges of one read.
  let reading: Promise<v.InferOutput<typeof OpenTasks>> | undefined;
  gauge("aau_open_tasks", "Tasks that are queued or running, as PostgreSQL knows them", ["plugin", "status"], async (open) => {
    reading = openTasks(db).catch(() => []);
    for (const { plugin_name: plugin, status, count } of await reading) open.set({ plugin: plugin ?? "", status }, count);
  });
  gauge("aau_oldest_queued_task_seconds", "Age of the oldest task that nobody has begun", ["plugin"], async (age) => {
    reading ??= openTasks(db).catch(() => []);
    for (const { plugin_name: plugin, status, oldest_sec } of await reading) if (status === "queued") age.set({ plugin: plugin ?? "" }, oldest_sec);
    reading = undefined;
  });
  new Gauge({
    name: "aau_bridge_in_flight",
    help: "Deliveries that this bridge has open",
    labelNames: ["stream"],
    registers,
    collect() {
      for (const [stream, consumer] of consumers) this.set({ stream }, consumer.inFlight);
    },
  });
}

function pairs(flat: unknown[]): Record<string, unknown> {
  return Object.fromEntries(flat.flatMap((name, at) => (at % 2 === 0 ? [[String(name), flat[at + 1]]] : [])));
}

async function depthOf(redis: Redis, stream: string): Promise<number | null> {
  const counts = await tryRedis(redis, (r) => Promise.all([r.xlen(stream), r.zcard(retrySet(stream))]));
  return counts && counts[0] + counts[1];
}

async function routableVersions(db: PlatformDb) {
  const rows = await db.call(
    "SELECT p.name AS plugin, pv.version FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id WHERE p.status <> 'retired' AND pv.status IN ('active', 'deprecated')",
    [],
  );
  return v.parse(Versions, rows);
}

/** Reads the partial index of tasks that are due some time, never the table. */
async function openTasks(db: PlatformDb) {
  const { rows } = await db.platform((tx) =>
    sql`SELECT plugin_name, status, count(*)::int AS count, extract(epoch FROM now() - min(created_at))::float8 AS oldest_sec
        FROM tasks WHERE status IN ('queued', 'running') GROUP BY plugin_name, status`.execute(tx),
  );
  return v.parse(OpenTasks, rows);
}
