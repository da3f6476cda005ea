/** The one always-on process: it turns entries of Redis Streams into CloudEvents for functions, one consumer a stream. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import { Counter } from "prom-client";
import { openDatabase, type PlatformDb } from "../../db/database.ts";
import { parseId } from "../../ids.ts";
import { connectReader, connectRedis } from "../../redis/connect.ts";
import { evictionPolicy, evicts } from "../../redis/eviction.ts";
import { backlogStream, taskStream } from "../../redis/streams.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { Spans } from "../../telemetry/spans.ts";
import { type Config, required } from "../config.ts";
import { functionUrl } from "../function-url.ts";
import { deliveryAgent } from "./delivery.ts";
import { exportGauges } from "./gauges.ts";
import { defineStreamCommands, type Entry } from "./stream-commands.ts";
import { type StreamConsumer, startStreamConsumer } from "./stream-consumer.ts";
import { WIRING } from "./wiring.generated.ts";

export interface Bridge {
  stop(): Promise<void>;
}

/** Of the deliveries at a time that a stream has: what backlogs keep busy leaves room for who comes with a single task. */
const BACKLOG_SHARE = 0.75;
const FIND_STREAMS_EVERY_MS = 2_000;
/** A Redis that is away at boot is waited for no longer; the bridge begins without the look at it. */
const REDIS_AT_BOOT_MS = 2_000;

export async function startBridge(config: Config, log: Log, metrics: Metrics, spans: Spans | null = null): Promise<Bridge> {
  const redisUrl = required(config, "REDIS_URL");
  const redis = connectRedis(redisUrl, { commandTimeout: 2_000 });
  defineStreamCommands(redis);
  const policy = await policyAtBoot(redis);
  if (policy !== null) {
    redis.disconnect();
    throw evicts(policy);
  }
  const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 2 });
  const agent = deliveryAgent();
  const consumers = new Map<string, StreamConsumer>();
  const leaving = new Set<Promise<void>>();
  // Host and boot: a process that comes back under the same name must not be taken for the one that died.
  const consumer = `${hostname()}-${randomUUID()}`;
  const deliveries = new Counter({ name: "aau_bridge_deliveries_total", help: "Deliveries by verdict", labelNames: ["stream", "verdict"], registers: [metrics.registry] });
  exportGauges({ redis, db, consumers, metrics });

  function consume(stream: string, wire: (typeof WIRING)[number], maxInFlight: number): void {
    if (consumers.has(stream)) return;
    consumers.set(
      stream,
      startStreamConsumer({
        stream,
        consumer,
        target: { url: functionUrl(config, wire.function), event: wire.event, serviceToken: required(config, "SERVICE_TOKEN") },
        maxInFlight,
        redis,
        blocking: connectReader(redisUrl),
        agent,
        log,
        spans,
        onDead: (entry, reason) => failWork(db, entry, reason),
        onVerdict: (verdict) => deliveries.inc({ stream, verdict }),
      }),
    );
    log("info", "stream is read", { stream });
  }

  async function findStreams(): Promise<void> {
    const found = new Set<string>();
    for (const wire of WIRING) {
      const plugins = wire.stream.includes("{plugin}") ? await listPluginNames(db) : null;
      for (const stream of plugins?.map(taskStream) ?? [wire.stream]) {
        found.add(stream);
        consume(stream, wire, config.BRIDGE_IN_FLIGHT);
      }
      for (const stream of plugins?.map(backlogStream) ?? []) {
        found.add(stream);
        consume(stream, wire, Math.ceil(config.BRIDGE_IN_FLIGHT * BACKLOG_SHARE));
      }
    }
    // Each holds a connection to Redis; those of retired plugins must not gather.
    for (const [stream, consumer] of consumers) {
      if (found.has(stream)) continue;
      consumers.delete(stream);
      leaving.add(consumer.stop(config.DRAIN_MS));
      log("info", "stream is not read any more", { stream });
    }
  }

  let finding: Promise<void> = findStreams().catch((error: unknown) => log("warn", "plugins cannot be listed", { error }));
  const finder = setInterval(() => {
    finding = findStreams().catch((error: unknown) => log("warn", "plugins cannot be listed", { error }));
  }, FIND_STREAMS_EVERY_MS);
  await finding;

  return {
    async stop() {
      clearInterval(finder);
      await finding;
      await Promise.all([...leaving, ...[...consumers.values()].map((c) => c.stop(config.DRAIN_MS))]);
      await agent.destroy();
      redis.disconnect();
      await db.close();
    },
  };
}

async function policyAtBoot(redis: Redis): Promise<string | null> {
  if (redis.status !== "ready") await Promise.race([once(redis, "ready"), delay(REDIS_AT_BOOT_MS, undefined, { ref: false })]).catch(() => {});
  return evictionPolicy(redis);
}

async function listPluginNames(db: PlatformDb): Promise<string[]> {
  const rows = await db.call<{ name: string }>("SELECT name FROM plugins WHERE status <> 'retired'", []);
  return rows.map((row) => row.name);
}

/** The task or document whose event cannot be delivered ends with a clear error, unless somebody holds it or it is over. */
async function failWork(db: PlatformDb, entry: Entry, reason: string): Promise<void> {
  const documentId = parseId("document", entry.fields.document_id ?? "");
  if (documentId) await db.call("SELECT fail_undeliverable_document($1, $2)", [documentId, `The document could not be handed to the function that embeds it (${reason}).`]);
  const taskId = parseId("task", entry.fields.task_id ?? "");
  if (!taskId) return;
  const error = { code: "INTERNAL", message: `The task could not be handed to an executor (${reason}).`, cause: "platform" };
  await db.call("SELECT fail_undeliverable_task($1, $2)", [taskId, JSON.stringify(error)]);
}
