/** Redis connections. Commands fail fast: everything in Redis may vanish, so nothing waits for it. */
import { Redis, type RedisOptions } from "ioredis";

const COMMAND_TIMEOUT_MS = 250;

/** For commands. An unreachable Redis costs at most a quarter of a second, and nothing queues up behind it. */
export function connectRedis(url: string, options: RedisOptions = {}): Redis {
  const redis = new Redis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: 2_000,
    enableAutoPipelining: true,
    retryStrategy: (tries) => Math.min(50 * 2 ** Math.min(tries, 5), 1_000),
    ...options,
  });
  // Reconnecting is ioredis's business; without a listener every failed try would print.
  redis.on("error", () => {});
  redis.connect().catch(() => {});
  return redis;
}

/** For SUBSCRIBE and blocking reads, which wait on purpose. */
export function connectBlockingRedis(url: string): Redis {
  return connectRedis(url, { commandTimeout: undefined, enableAutoPipelining: false, maxRetriesPerRequest: null });
}
