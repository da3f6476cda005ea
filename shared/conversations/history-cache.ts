/**
 * What was said in a conversation, as Redis remembers it for two minutes. An entry is believed only while nobody writes to the
 * conversation, and a reader stores only what it read since the last write began; so neither a slow reader nor a writer that was
 * killed can bring old turns back. Whoever finds no entry asks PostgreSQL.
 */
import type { Redis, Result } from "ioredis";
import * as v from "valibot";
import { tryRedis } from "../redis/availability.ts";
import { Turn } from "../sdk/src/envelopes.ts";
import type { ConversationId } from "./conversation-id.ts";

/** Also the longest that an older history can be given, when Redis could be told neither that a write began nor that it ended. */
const CACHE_MS = 120_000;

// KEYS: entry. ARGV: 1 when a write begins and -1 when it ends, time to live. A writer that never comes back leaves the entry unusable.
const MARK = `
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'generation', t[1] .. '.' .. t[2])
redis.call('HDEL', KEYS[1], 'turns')
if redis.call('HINCRBY', KEYS[1], 'writers', ARGV[1]) < 0 then redis.call('HSET', KEYS[1], 'writers', 0) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
`;

// KEYS: entry. ARGV: the generation that the reader saw, the turns, time to live.
const FILL = `
local now = redis.call('HMGET', KEYS[1], 'generation', 'writers')
if now[1] ~= ARGV[1] or now[2] ~= '0' then return 0 end
redis.call('HSET', KEYS[1], 'turns', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauMarkHistory(key: string, change: number, ttlMs: number): Result<number, Context>;
    aauFillHistory(key: string, generation: string, turns: string, ttlMs: number): Result<number, Context>;
  }
}

const Turns = v.pipe(v.string(), v.parseJson(), v.array(Turn));

export const historyKey = (tenantId: string, id: ConversationId): string => `conv:${tenantId}:${id}`;

export interface CachedHistory {
  /** Null: ask PostgreSQL. */
  turns: Turn[] | null;
  /** What `fillHistory` must show; null when nothing may be stored now. */
  generation: string | null;
}

export async function readHistory(redis: Redis, key: string): Promise<CachedHistory> {
  const [generation, writers, text] = (await tryRedis(redis, (r) => r.hmget(key, "generation", "writers", "turns"))) ?? [];
  if (!generation || writers !== "0") return { turns: null, generation: null };
  const turns = v.safeParse(Turns, text);
  return { turns: turns.success ? turns.output : null, generation };
}

export async function fillHistory(redis: Redis, key: string, generation: string, turns: readonly Turn[]): Promise<void> {
  await tryRedis(prepared(redis), (r) => r.aauFillHistory(key, generation, JSON.stringify(turns), CACHE_MS));
}

/** Runs a write to a conversation. When it throws, nobody knows yet whether it took place, and the entry stays unusable. */
export async function whileChanging<T>(redis: Redis, key: string, write: () => Promise<T>): Promise<T> {
  const mark = (change: 1 | -1) => tryRedis(prepared(redis), (r) => r.aauMarkHistory(key, change, CACHE_MS));
  await mark(1);
  const result = await write();
  await mark(-1);
  return result;
}

function prepared(redis: Redis): Redis {
  if (!redis.aauMarkHistory) {
    redis.defineCommand("aauMarkHistory", { numberOfKeys: 1, lua: MARK });
    redis.defineCommand("aauFillHistory", { numberOfKeys: 1, lua: FILL });
  }
  return redis;
}
