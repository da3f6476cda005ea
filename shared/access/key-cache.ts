/**
 * The cache of keys in Redis. An entry carries its tenant's access generation (migrations/0016) and counts for nothing once Redis knows of a
 * newer one, or of none: then PostgreSQL is asked. Whoever changes what a key may do commits, tells Redis the new generation, and only then
 * answers; after that no request is let in by what was cached, or read, before.
 *
 * A slow reader cannot undo this: what it read before the change has the old generation. Nor can one that read before Redis lost everything:
 * each Redis that begins empty has a new epoch, and an entry is taken only in the epoch in which it was missed.
 */
import type { Redis, Result } from "ioredis";
import { sql } from "kysely";
import * as v from "valibot";
import type { PlatformDb, Tx } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { asId, type TenantId } from "../ids.ts";
import { tryRedis } from "../redis/availability.ts";

/** An entry's life, and the longest that a change which Redis could not be told of can stay unseen. */
export const CACHE_MS = 300_000;
const UNKNOWN_CACHE_MS = 30_000;
/** Longer than every entry and every reader that could still bring one. */
const GENERATION_MS = 900_000;
const UNKNOWN = '{"x":"unknown"}';

/** What an entry says, if it still counts; and the time at which this Redis, as it is now, was first asked. */
export const READ_ENTRY = `
local function epoch()
  local known = redis.call('GET', 'auth:epoch')
  if known then return known end
  local t = redis.call('TIME')
  redis.call('SET', 'auth:epoch', t[1] .. '.' .. t[2])
  return t[1] .. '.' .. t[2]
end
local function living(text)
  if not text then return nil end
  local entry = cjson.decode(text)
  if entry.x or redis.call('GET', 'authgen:' .. entry.t) == entry.g then return entry end
  return nil
end
`;

// ARGV: epoch of the miss, entry, its life in ms, tenant or '' for a key that is none, generation, the generation's life.
const FILL = `${READ_ENTRY}
if redis.call('GET', 'auth:epoch') ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
  if living(redis.call('GET', KEYS[1])) then return 0 end
else
  local known = redis.call('GET', 'authgen:' .. ARGV[4])
  if known and tonumber(known) > tonumber(ARGV[5]) then return 0 end
  redis.call('SET', 'authgen:' .. ARGV[4], ARGV[5], 'PX', ARGV[6])
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`;

const TELL = `
local known = redis.call('GET', KEYS[1])
if known and tonumber(known) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauFillKey(authKey: string, epoch: string, entry: string, ttlMs: number, tenant: string, generation: string, generationMs: number): Result<unknown, Context>;
    aauTellAccess(generationKey: string, generation: string, ttlMs: number): Result<unknown, Context>;
  }
}

function prepare(redis: Redis): void {
  if ("aauFillKey" in redis && typeof redis.aauFillKey === "function") return;
  redis.defineCommand("aauFillKey", { numberOfKeys: 1, lua: FILL });
  redis.defineCommand("aauTellAccess", { numberOfKeys: 1, lua: TELL });
}

export interface KeyEntry {
  tenantId: TenantId;
  generation: string;
  text: string;
  ttlMs: number;
}

/** Caches what PostgreSQL said, or that it knows no such key; does nothing when something newer is known. */
export async function fillKeyCache(redis: Redis, hash: string, epoch: string, entry: KeyEntry | null): Promise<void> {
  prepare(redis);
  const key = `auth:${hash}`;
  await tryRedis(redis, (r) =>
    entry
      ? r.aauFillKey(key, epoch, entry.text, entry.ttlMs, entry.tenantId, entry.generation, GENERATION_MS)
      : r.aauFillKey(key, epoch, UNKNOWN, UNKNOWN_CACHE_MS, "", "", GENERATION_MS),
  );
}

/** The tenant's generation, as the transaction that changed it sees it. */
export async function readGeneration(tx: Tx, tenantId: TenantId): Promise<string> {
  return (await tx.selectFrom("tenants").select("access_generation").where("id", "=", tenantId).executeTakeFirstOrThrow()).access_generation;
}

/** Makes a committed change hold for the next request. Throws when Redis cannot be told: then the caller must not be told that it holds. */
export async function tellAccessChanged(redis: Redis, tenantId: TenantId, generation: string): Promise<void> {
  FAILPOINT: await failpoint("key.before_tell");
  prepare(redis);
  await redis.aauTellAccess(`authgen:${tenantId}`, generation, GENERATION_MS);
}

const Changed = v.array(v.object({ id: v.string(), access_generation: v.string() }));

/** Tells Redis again of every change that a cached key could still hide: for those whose teller died, and for a Redis that came back older. */
export async function retellAccessChanges(redis: Redis, db: PlatformDb, signal: AbortSignal): Promise<number> {
  const rows = v.parse(
    Changed,
    await db.platform((tx) =>
      tx.selectFrom("tenants").select(["id", "access_generation"]).where("access_changed_at", ">", sql<Date>`now() - ${GENERATION_MS} * interval '1 millisecond'`).execute(),
    ),
  );
  for (const row of rows) {
    if (signal.aborted) break;
    await tellAccessChanged(redis, asId("tenant", row.id), row.access_generation);
  }
  return rows.length;
}
