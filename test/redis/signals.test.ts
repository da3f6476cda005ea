import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { connectRedis, connectSubscriber } from "../../shared/redis/connect.ts";
import { openSignals, type Signals } from "../../shared/redis/signals.ts";
import { watchersKey } from "../../shared/redis/streams.ts";

let folder: string;
let server: LocalRedis;
const connections: Redis[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-test-"));
  server = await startRedis(folder, { persist: false });
});
afterAll(async () => {
  for (const connection of connections) connection.disconnect();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Signals as a process of its own has them, and its connection that listens. */
async function openProcess(): Promise<{ signals: Signals; redis: Redis; subscriber: Redis }> {
  const [redis, subscriber] = [connectRedis(server.url), connectSubscriber(server.url)];
  connections.push(redis, subscriber);
  await vi.waitFor(() => expect([redis.status, subscriber.status]).toEqual(["ready", "ready"]));
  return { signals: openSignals(redis, subscriber), redis, subscriber };
}

describe("a task's signals", () => {
  it("reach every process that waits for it, and no other", async () => {
    const [executor, first, second, idle] = await Promise.all([openProcess(), openProcess(), openProcess(), openProcess()]);
    const heard: string[] = [];
    await first.signals.watchTask("t1", () => heard.push("first"));
    await second.signals.watchTask("t1", () => heard.push("second"));
    await idle.signals.watchTask("t2", () => heard.push("idle"));
    await executor.signals.taskProgressed("t1");
    await vi.waitFor(() => expect(heard.sort()).toEqual(["first", "second"]));
    await executor.signals.taskEnded("t1");
    await vi.waitFor(() => expect(heard.sort()).toEqual(["first", "first", "second", "second"]));
    expect(await executor.redis.exists(watchersKey("t1"))).toBe(0);
  });

  it("are for nobody once the last wait is over", async () => {
    const { signals, redis } = await openProcess();
    const [one, other] = [await signals.watchTask("t3", () => {}), await signals.watchTask("t3", () => {})];
    await one[Symbol.asyncDispose]();
    expect(await redis.scard(watchersKey("t3"))).toBe(1);
    await other[Symbol.asyncDispose]();
    expect(await redis.exists(watchersKey("t3"))).toBe(0);
  });

  it("are heard again after Redis forgot everything and the connection broke", async () => {
    const [executor, waiting] = await Promise.all([openProcess(), openProcess()]);
    let heard = 0;
    await waiting.signals.watchTask("t4", () => {
      heard += 1;
    });
    await executor.redis.flushall();
    await executor.redis.call("CLIENT", "KILL", "TYPE", "pubsub");
    await vi.waitFor(async () => expect(await executor.redis.exists(watchersKey("t4"))).toBe(1), { timeout: 5_000 });
    await vi.waitFor(
      async () => {
        await executor.signals.taskProgressed("t4");
        expect(heard).toBeGreaterThan(0);
      },
      { timeout: 5_000 },
    );
  });
});
