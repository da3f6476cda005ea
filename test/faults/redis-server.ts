/** Redis without persistence, that can be killed, emptied, and asked past every proxy. */
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort } from "../../scripts/local/child.ts";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";

export interface RedisServer {
  /** Past every proxy, for looking. */
  url: string;
  /** SIGKILL; it comes back after `downMs`, without its data unless `keeps`: then with what an append-only file synced each second holds. */
  crash(downMs: number, options?: { keeps: boolean }): Promise<void>;
  flush(): Promise<unknown>;
  stop(): Promise<void>;
}

export async function startRedisServer(folder: string): Promise<RedisServer> {
  const port = await freePort();
  const open = (persist: boolean) => startRedis(join(folder, "redis"), { persist, port });
  let server: LocalRedis = await open(false);
  return {
    url: server.url,
    async crash(downMs, { keeps } = { keeps: false }) {
      if (keeps) await ask(server.url, (redis) => redis.config("SET", "appendonly", "yes"));
      server.child.process.kill("SIGKILL");
      await server.child.exited;
      await new Promise((resolve) => setTimeout(resolve, downMs));
      server = await open(keeps);
    },
    flush: () => ask(server.url, (redis) => redis.flushall()),
    stop: () => server.stop(),
  };
}

/** One command past every proxy. */
export async function ask<T>(url: string, command: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
  redis.on("error", () => {});
  try {
    await redis.connect();
    return await command(redis);
  } finally {
    redis.disconnect();
  }
}
