import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, inject, it, vi } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { startBridge } from "../../shared/host/bridge/bridge.ts";
import { deliveryAgent } from "../../shared/host/bridge/delivery.ts";
import { defineStreamCommands } from "../../shared/host/bridge/stream-commands.ts";
import { startStreamConsumer } from "../../shared/host/bridge/stream-consumer.ts";
import { WIRING } from "../../shared/host/bridge/wiring.generated.ts";
import { readConfig } from "../../shared/host/config.ts";
import { connectReader, connectRedis } from "../../shared/redis/connect.ts";
import { openLog } from "../../shared/telemetry/log.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";
import { freshDatabase } from "../support/postgres.ts";

let folder: string;
let server: LocalRedis;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-test-"));
  server = await startRedis(folder, { persist: false });
});
afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

it("a bridge does not start on a Redis that would evict its streams", async () => {
  const redis = connectRedis(server.url);
  await vi.waitFor(() => expect(redis.status).toBe("ready"));
  const start = () =>
    startBridge(readConfig({ REDIS_URL: server.url, DATABASE_URL: "postgres://127.0.0.1:1/none" }), openLog({ service: "bridge", level: "silent" }), openMetrics());
  try {
    for (const policy of ["allkeys-lru", "allkeys-random"]) {
      await redis.config("SET", "maxmemory-policy", policy);
      await expect(start()).rejects.toThrow(`maxmemory-policy ${policy}`);
    }
  } finally {
    await redis.config("SET", "maxmemory-policy", "noeviction");
    redis.disconnect();
  }
});

it("a bridge reads the streams of the plugins that there are, and lets go of those that are retired", async () => {
  const url = await freshDatabase(inject("postgresUrl"));
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  const redis = connectRedis(server.url);
  await vi.waitFor(() => expect(redis.status).toBe("ready"));
  const config = readConfig({ REDIS_URL: server.url, DATABASE_URL: url, SERVICE_TOKEN: "a token of the platform's own, long enough", DRAIN_MS: "1000" });
  const addPlugin = (name: string) => admin.query("INSERT INTO plugins (id, name, category) VALUES (gen_random_uuid(), $1, 'testing')", [name]);
  const readers = async () => {
    const clients = String(await redis.client("LIST"));
    return clients.match(/cmd=xreadgroup/g)?.length ?? 0;
  };
  await addPlugin("staying");
  await addPlugin("leaving");
  const bridge = await startBridge(config, openLog({ service: "bridge", level: "silent" }), openMetrics());
  try {
    await vi.waitFor(async () => expect(await redis.exists("stream:tasks:staying", "stream:tasks:leaving")).toBe(2));
    // One line of the wiring stands for the two streams that each plugin has.
    await vi.waitFor(async () => expect(await readers()).toBe(WIRING.length - 1 + 4));
    await admin.query("UPDATE plugins SET status = 'retired' WHERE name = 'leaving'");
    await vi.waitFor(async () => expect(await readers()).toBe(WIRING.length - 1 + 2), { timeout: 10_000 });
  } finally {
    await bridge.stop();
    redis.disconnect();
    await admin.end();
  }
}, 20_000);

it("a consumer stops also when Redis went away while it waited for entries", async () => {
  const redis = connectRedis(server.url, { commandTimeout: 2_000 });
  const blocking = connectReader(server.url);
  defineStreamCommands(redis);
  const agent = deliveryAgent();
  await vi.waitFor(() => expect([redis.status, blocking.status]).toEqual(["ready", "ready"]));
  const target = { url: "http://127.0.0.1:1/", event: "io.aau.test", serviceToken: "token" };
  const consumer = startStreamConsumer({
    stream: "stream:test",
    consumer: "one",
    target,
    maxInFlight: 4,
    redis,
    blocking,
    agent,
    log: () => {},
    onDead: async () => {},
    onVerdict: () => {},
  });
  await vi.waitFor(async () => expect(await redis.client("LIST")).toMatch(/cmd=xreadgroup/));
  server.child.process.kill("SIGKILL");
  await server.child.exited;
  // The connection that the read was made on is gone, and the next one was tried in vain.
  await vi.waitFor(() => expect(blocking.status).toBe("reconnecting"));
  await new Promise((resolve) => blocking.once("close", resolve));
  await consumer.stop(1_000);
  redis.disconnect();
  await agent.destroy();
}, 10_000);
