/** The connections that several resources share. */
import { openDatabase } from "../../db/database.ts";
import { connectRedis, connectSubscriber } from "../../redis/connect.ts";
import { required } from "../config.ts";
import type { Opening } from "../resources.ts";

export const DATABASE_VARIABLES = ["DATABASE_URL", "DATABASE_DRIVER", "DATABASE_POOL", "DATABASE_WAIT_MS"] as const;
export const REDIS_VARIABLES = ["REDIS_URL"] as const;

export function database({ config, share, onClose }: Opening) {
  return share("database", async () => {
    const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: config.DATABASE_POOL, waitMs: config.DATABASE_WAIT_MS });
    onClose(() => db.close());
    return db;
  });
}

export function redisConnection({ config, share, onClose }: Opening) {
  return share("redis", () => {
    const redis = connectRedis(required(config, "REDIS_URL"));
    onClose(() => redis.disconnect());
    return redis;
  });
}

export function subscriberConnection({ config, share, onClose }: Opening) {
  return share("subscriber", () => {
    const redis = connectSubscriber(required(config, "REDIS_URL"));
    onClose(() => redis.disconnect());
    return redis;
  });
}
