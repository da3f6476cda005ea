/** Circuits of a test's Redis: looked at, forgotten, or made older than they are, so that no test waits for a cooldown. */
import { Redis } from "ioredis";

async function withRedis<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { lazyConnect: true });
  try {
    await redis.connect();
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

export const forgetCircuits = (url: string) =>
  withRedis(url, async (redis) => {
    const keys = await redis.keys("circuit:*");
    if (keys.length > 0) await redis.del(...keys);
  });

export const circuitOf = (url: string, plugin: string, version = "1.0.0") => withRedis(url, (redis) => redis.hgetall(`circuit:${plugin}:${version}`));

/** The cooldown of an open circuit, or the time of a probe, is over. */
export const passTime = (url: string, plugin: string, field: "until" | "probe_until", version = "1.0.0") =>
  withRedis(url, (redis) => redis.hset(`circuit:${plugin}:${version}`, field, 1));
