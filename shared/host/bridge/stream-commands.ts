/** What the bridge does to a stream, each step atomic: an entry is in the stream, in the retry set or among the dead, never in two and never in none. */
import type { Redis, Result } from "ioredis";
import * as v from "valibot";
import { CONSUMER_GROUP, DEAD_STREAM } from "../../redis/streams.ts";

export const retrySet = (stream: string): string => `retry:${stream}`;

/** One stream entry as it was read. */
export interface Entry {
  id: string;
  fields: Record<string, string>;
}

// KEYS: stream, retry set. ARGV: group, entry id, delay in ms, member.
const RETRY = `
local t = redis.call('TIME')
redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3], ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
`;

// KEYS: stream, dead stream. ARGV: group, entry id, then the dead entry's fields.
const BURY = `
local fields = {}
for i = 3, #ARGV do fields[i - 2] = ARGV[i] end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', unpack(fields))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
`;

// KEYS: stream, retry set. ARGV: how many at most. Members are JSON objects of fields.
const REQUEUE = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local fields = {}
  for name, value in pairs(cjson.decode(member)) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  redis.call('XADD', KEYS[1], '*', unpack(fields))
  redis.call('ZREM', KEYS[2], member)
end
return #due
`;

// KEYS: stream. ARGV: group, consumer. Deleting a consumer drops its pending entries, so only one without any may go.
const FORGET = `
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local found = {}
  for i = 1, #consumer, 2 do found[consumer[i]] = consumer[i + 1] end
  if found['name'] ~= ARGV[2] and found['pending'] == 0 and found['idle'] > 600000 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], found['name'])
  end
end
return 1
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauRetry(stream: string, retrySet: string, group: string, id: string, delayMs: number, member: string): Result<number, Context>;
    aauBury(stream: string, deadStream: string, group: string, id: string, ...fields: string[]): Result<number, Context>;
    aauRequeue(stream: string, retrySet: string, count: number): Result<number, Context>;
    aauForget(stream: string, group: string, consumer: string): Result<number, Context>;
  }
}

export function defineStreamCommands(redis: Redis): void {
  redis.defineCommand("aauRetry", { numberOfKeys: 2, lua: RETRY });
  redis.defineCommand("aauBury", { numberOfKeys: 2, lua: BURY });
  redis.defineCommand("aauRequeue", { numberOfKeys: 2, lua: REQUEUE });
  redis.defineCommand("aauForget", { numberOfKeys: 1, lua: FORGET });
}

/** At `0`, so that nothing that came before the group is missed. */
export async function ensureGroup(redis: Redis, stream: string): Promise<void> {
  try {
    await redis.xgroup("CREATE", stream, CONSUMER_GROUP, "0", "MKSTREAM");
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith("BUSYGROUP"))) throw error;
  }
}

export function isMissingGroup(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("NOGROUP");
}

/** Acknowledged entries leave the stream at once: its length is what is not done yet. */
export async function acknowledge(redis: Redis, stream: string, ids: readonly string[]): Promise<void> {
  await Promise.all([redis.xack(stream, CONSUMER_GROUP, ...ids), redis.xdel(stream, ...ids)]);
}

export async function scheduleRetry(redis: Redis, stream: string, entry: Entry, delayMs: number): Promise<void> {
  await redis.aauRetry(stream, retrySet(stream), CONSUMER_GROUP, entry.id, Math.round(delayMs), JSON.stringify(entry.fields));
}

export async function bury(redis: Redis, stream: string, entry: Entry, reason: string): Promise<void> {
  const fields = { ...entry.fields, stream, reason };
  await redis.aauBury(stream, DEAD_STREAM, CONSUMER_GROUP, entry.id, ...Object.entries(fields).flat());
}

export const requeueDue = (redis: Redis, stream: string, count: number): Promise<number> => redis.aauRequeue(stream, retrySet(stream), count);
export const forgetIdleConsumers = (redis: Redis, stream: string, consumer: string): Promise<number> => redis.aauForget(stream, CONSUMER_GROUP, consumer);

const RawEntry = v.tuple([v.string(), v.nullable(v.array(v.string()))]);
const Read = v.nullable(v.array(v.tuple([v.string(), v.array(RawEntry)])));
const AutoClaimed = v.looseTuple([v.string(), v.array(RawEntry)]);

export async function readNew(blocking: Redis, stream: string, consumer: string, count: number, blockMs: number): Promise<Entry[]> {
  const raw = await blocking.xreadgroup("GROUP", CONSUMER_GROUP, consumer, "COUNT", count, "BLOCK", blockMs, "STREAMS", stream, ">");
  return (v.parse(Read, raw) ?? []).flatMap(([, entries]) => toEntries(entries));
}

/** Entries of consumers that have not renewed their claim for `minIdleMs`. */
export async function takeOver(redis: Redis, stream: string, consumer: string, minIdleMs: number, count: number): Promise<Entry[]> {
  const raw = await redis.xautoclaim(stream, CONSUMER_GROUP, consumer, minIdleMs, "0-0", "COUNT", count);
  return toEntries(v.parse(AutoClaimed, raw)[1]);
}

export async function renewClaims(redis: Redis, stream: string, consumer: string, ids: readonly string[]): Promise<void> {
  if (ids.length > 0) await redis.xclaim(stream, CONSUMER_GROUP, consumer, 0, ...ids, "JUSTID");
}

/** Lets the next bridge take these over at once. */
export async function releaseClaims(redis: Redis, stream: string, consumer: string, ids: readonly string[]): Promise<void> {
  if (ids.length > 0) await redis.xclaim(stream, CONSUMER_GROUP, consumer, 0, ...ids, "IDLE", 86_400_000, "JUSTID");
}

function toEntries(raw: readonly v.InferOutput<typeof RawEntry>[]): Entry[] {
  return raw.flatMap(([id, flat]) => {
    if (flat === null) return [];
    const fields: Record<string, string> = {};
    for (let i = 0; i + 1 < flat.length; i += 2) fields[flat[i] ?? ""] = flat[i + 1] ?? "";
    return [{ id, fields }];
  });
}
