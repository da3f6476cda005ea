/**
 * After a failed command Redis is left alone for a moment, so that an outage costs one time-out a second and not one a
 * request. Callers say what they do without it.
 */
import type { Redis } from "ioredis";

const REST_MS = 1_000;
const restsUntil = new WeakMap<Redis, number>();

/** The command's answer, or null when Redis cannot be asked. */
export async function tryRedis<T>(redis: Redis, command: (redis: Redis) => Promise<T>): Promise<T | null> {
  const until = restsUntil.get(redis);
  if (until !== undefined && until > performance.now()) return null;
  try {
    const answer = await command(redis);
    if (until !== undefined) restsUntil.delete(redis);
    return answer;
  } catch (error) {
    // An error that Redis itself answered is a bug or a wrong type of key, and says nothing about availability.
    if (error instanceof Error && error.name === "ReplyError" && !/^(OOM|LOADING|READONLY|MISCONF|NOSCRIPT|BUSY)/.test(error.message)) throw error;
    restsUntil.set(redis, performance.now() + REST_MS);
    return null;
  }
}
