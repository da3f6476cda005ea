/**
 * Who may come in, and how often: one Lua call reads the cached key, counts the request in the tenant's sliding window, and for
 * a submit also reads the route cache and counts in the plugin's window. Cache and table are looked up by the hash of the whole key.
 * The scripts and the reader of their answers stand together: each is only right beside the other.
 */
import type { Redis, Result } from "ioredis";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { asId } from "../ids.ts";
import { tryRedis } from "../redis/availability.ts";
import { hashApiKey, looksLikeApiKey } from "./api-key.ts";
import { type Caller, Environment, PlanTier, SCOPES, Scope } from "./caller.ts";
import { localWindows } from "./local-windows.ts";
import { rateLimitsOf } from "./rate-limits.ts";

export const WINDOW_MS = 60_000;
const CACHE_MS = 300_000;
const UNKNOWN_CACHE_MS = 30_000;
/** Longer than any reader that read the key before it was revoked can take to write it back. */
const TOMBSTONE_MS = 600_000;
const UNKNOWN = '{"x":"unknown"}';
const REVOKED = '{"x":"revoked"}';

/** Counts a request in a list of the times of the last `limit` admitted ones: exact for every sliding window, O(1) amortised. */
export const TAKE = `
local function take(key, limit, now, window)
  local head = redis.call('LINDEX', key, 0)
  while head and tonumber(head) <= now - window do
    redis.call('LPOP', key)
    head = redis.call('LINDEX', key, 0)
  end
  local used = redis.call('LLEN', key)
  local reset = (head and tonumber(head) or now) + window - now
  if used >= limit then return {0, 0, reset} end
  redis.call('RPUSH', key, now)
  redis.call('PEXPIRE', key, window)
  return {1, limit - used - 1, reset}
end
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
`;

// KEYS: auth entry. ARGV: window, plugin or '', digest of the command or ''.
const ADMIT = `${TAKE}
local auth = redis.call('GET', KEYS[1])
if not auth then return {0} end
local caller = cjson.decode(auth)
if caller.x then return {1} end
local now = clock()
local window = tonumber(ARGV[1])
local tenant = take('rate:' .. caller.t, caller.lt, now, window)
local generation = redis.call('GET', 'registry:gen') or ''
local route = ''
local plugin = ARGV[2]
if tenant[1] == 1 and ARGV[3] ~= '' and generation ~= '' then
  route = redis.call('GET', 'route:' .. caller.t .. ':' .. generation .. ':' .. ARGV[3]) or ''
  if route ~= '' then plugin = cjson.decode(route).p end
end
if tenant[1] == 0 or plugin == '' then return {2, auth, tenant[1], tenant[2], tenant[3], generation, route} end
local own = take('rate:' .. caller.t .. ':' .. plugin, caller.lp, now, window)
return {2, auth, tenant[1], tenant[2], tenant[3], generation, route, own[1], own[2], own[3]}
`;

const TAKE_ONE = `${TAKE}
return take(KEYS[1], tonumber(ARGV[2]), clock(), tonumber(ARGV[1]))
`;

// A revocation that came in the meantime stays: what was read before it must not take its place.
const RECACHE = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauAdmit(authKey: string, windowMs: number, plugin: string, commandDigest: string): Result<unknown, Context>;
    aauTake(key: string, windowMs: number, limit: number): Result<unknown, Context>;
    aauRecache(authKey: string, tombstone: string, entry: string, ttlMs: number): Result<unknown, Context>;
  }
}

/** State of one sliding window after this request. */
export interface RateState {
  admitted: boolean;
  limit: number;
  remaining: number;
  /** Until a place becomes free (when refused) or the oldest request leaves the window. */
  resetMs: number;
}

export interface Admission {
  caller: Caller;
  rate: RateState;
  /** The plugin's window, when the plugin was known in the same call. */
  pluginRate: RateState | null;
  /** The registry's generation in Redis, and the cached route of the command, when Redis holds them. */
  registryGeneration: string | null;
  cachedRoute: string | null;
  cacheHit: boolean;
}

export interface RouteHint {
  plugin?: string;
  commandDigest?: string;
}

export interface Doorkeeper {
  /** Null: no such key. A caller over the tenant's limit is returned with `rate.admitted` false. */
  admit(key: string, hint?: RouteHint): Promise<Admission | null>;
  /** Counts a request in the plugin's window, when `admit` did not know the plugin yet. */
  admitToPlugin(caller: Caller, plugin: string): Promise<RateState>;
}

/** One per Redis connection and process. */
export function openDoorkeeper(redis: Redis, db: TenantDb): Doorkeeper {
  prepare(redis);
  const windows = localWindows(WINDOW_MS);
  const localState = (key: string, limit: number): RateState => windows.take(key, limit);

  async function ask(hash: string, hint: RouteHint) {
    const answer = await tryRedis(redis, (r) => r.aauAdmit(`auth:${hash}`, WINDOW_MS, hint.plugin ?? "", hint.commandDigest ?? ""));
    return answer === null ? null : parseAnswer(answer);
  }

  return {
    async admit(key, hint = {}) {
      if (!looksLikeApiKey(key)) return null;
      const hash = hashApiKey(key);
      let answer = await ask(hash, hint);
      if (answer?.kind === "refused") return null;
      if (answer?.kind === "admission") return { ...answer.admission, cacheHit: true };

      const found = await findKey(db, hash);
      if (answer?.kind === "miss") {
        await fillCache(redis, hash, found);
        if (!found) return null;
        answer = await ask(hash, hint);
        if (answer?.kind === "refused") return null;
        if (answer?.kind === "admission") return { ...answer.admission, cacheHit: false };
      }
      // Redis is away, or lost the entry at once: PostgreSQL has said who it is, and a window of this process stands in.
      if (!found) return null;
      const { caller } = found;
      return {
        caller,
        rate: localState(caller.tenantId, caller.limits.perTenant),
        pluginRate: hint.plugin ? localState(`${caller.tenantId}:${hint.plugin}`, caller.limits.perPlugin) : null,
        registryGeneration: null,
        cachedRoute: null,
        cacheHit: false,
      };
    },

    async admitToPlugin(caller, plugin) {
      const key = `${caller.tenantId}:${plugin}`;
      const answer = await tryRedis(redis, (r) => r.aauTake(`rate:${key}`, WINDOW_MS, caller.limits.perPlugin));
      return answer === null ? localState(key, caller.limits.perPlugin) : rateState(v.parse(Take, answer), caller.limits.perPlugin);
    },
  };
}

/** Makes a revocation hold for every reader at once. Throws when Redis cannot be told: then the caller must not be told 204. */
export async function forgetKey(redis: Redis, hash: string): Promise<void> {
  await redis.set(`auth:${hash}`, REVOKED, "PX", TOMBSTONE_MS);
}

/** Replaces what is cached after a change of the key's end, so that no reader serves it longer than it lives. A tombstone stays. */
export async function recacheKey(redis: Redis, db: TenantDb, hash: string): Promise<void> {
  const found = await findKey(db, hash);
  if (!found) return forgetKey(redis, hash);
  prepare(redis);
  await redis.aauRecache(`auth:${hash}`, REVOKED, found.entry, found.ttlMs);
}

/** How long a reader may go on accepting a key that the cache could not be told about. */
export const STALE_KEY_MS = CACHE_MS;

function prepare(redis: Redis): void {
  if ("aauAdmit" in redis && typeof redis.aauAdmit === "function") return;
  redis.defineCommand("aauAdmit", { numberOfKeys: 1, lua: ADMIT });
  redis.defineCommand("aauTake", { numberOfKeys: 1, lua: TAKE_ONE });
  redis.defineCommand("aauRecache", { numberOfKeys: 1, lua: RECACHE });
}

const CacheEntry = v.object({
  k: v.string(),
  t: v.string(),
  u: v.nullable(v.string()),
  v: Environment,
  s: v.array(v.string()),
  p: PlanTier,
  lt: v.number(),
  lp: v.number(),
});

const Take = v.strictTuple([v.number(), v.number(), v.number()]);
// Strict: a plain tuple takes the longer answer for the shorter one and drops the rest.
const Answer = v.union([
  v.strictTuple([v.literal(0)]),
  v.strictTuple([v.literal(1)]),
  v.strictTuple([v.literal(2), v.string(), v.number(), v.number(), v.number(), v.string(), v.string()]),
  v.strictTuple([v.literal(2), v.string(), v.number(), v.number(), v.number(), v.string(), v.string(), v.number(), v.number(), v.number()]),
]);

function rateState([admitted, remaining, resetMs]: v.InferOutput<typeof Take>, limit: number): RateState {
  return { admitted: admitted === 1, limit, remaining, resetMs };
}

function parseAnswer(raw: unknown): { kind: "miss" } | { kind: "refused" } | { kind: "admission"; admission: Omit<Admission, "cacheHit"> } {
  const answer = v.parse(Answer, raw);
  if (answer[0] === 0) return { kind: "miss" };
  if (answer[0] === 1) return { kind: "refused" };
  const caller = callerOf(answer[1]);
  return {
    kind: "admission",
    admission: {
      caller,
      rate: rateState([answer[2], answer[3], answer[4]], caller.limits.perTenant),
      pluginRate: answer.length === 10 ? rateState([answer[7], answer[8], answer[9]], caller.limits.perPlugin) : null,
      registryGeneration: answer[5] === "" ? null : answer[5],
      cachedRoute: answer[6] === "" ? null : answer[6],
    },
  };
}

/** Parsing the same entry for every request of a busy key would cost more than the look-up. */
const parsed = new Map<string, Caller>();
const MAX_PARSED = 2_000;

function callerOf(entry: string): Caller {
  const known = parsed.get(entry);
  if (known) return known;
  const e = v.parse(CacheEntry, JSON.parse(entry));
  const caller: Caller = Object.freeze({
    keyId: asId("key", e.k),
    tenantId: asId("tenant", e.t),
    userId: e.u === null ? null : asId("user", e.u),
    environment: e.v,
    scopes: Object.freeze(e.s.filter((scope): scope is Scope => v.is(Scope, scope))),
    tier: e.p,
    limits: { perTenant: e.lt, perPlugin: e.lp },
  });
  if (parsed.size >= MAX_PARSED) parsed.clear();
  parsed.set(entry, caller);
  return caller;
}

const KeyRow = v.object({
  key_id: v.string(),
  tenant_id: v.string(),
  user_id: v.nullable(v.string()),
  environment: Environment,
  scopes: v.array(v.string()),
  plan_tier: PlanTier,
  settings: v.unknown(),
  expires_in_ms: v.nullable(v.union([v.number(), v.string()])),
  revoked: v.boolean(),
});

interface FoundKey {
  caller: Caller;
  entry: string;
  ttlMs: number;
}

async function findKey(db: TenantDb, hash: string): Promise<FoundKey | null> {
  const [raw] = await db.call("SELECT * FROM authenticate_key($1)", [hash]);
  if (!raw) return null;
  const row = v.parse(KeyRow, raw);
  const expiresInMs = row.expires_in_ms === null ? Number.POSITIVE_INFINITY : Number(row.expires_in_ms);
  if (row.revoked || expiresInMs <= 0) return null;
  const limits = rateLimitsOf(row.plan_tier, row.settings);
  const scopes = row.scopes.filter((scope) => SCOPES.some((known) => known === scope));
  const entry = JSON.stringify({ k: row.key_id, t: row.tenant_id, u: row.user_id, v: row.environment, s: scopes, p: row.plan_tier, lt: limits.perTenant, lp: limits.perPlugin });
  return { caller: callerOf(entry), entry, ttlMs: Math.max(1, Math.floor(Math.min(CACHE_MS, expiresInMs))) };
}

/** NX: a tombstone that a revocation has left in the meantime stays. */
async function fillCache(redis: Redis, hash: string, found: FoundKey | null): Promise<void> {
  await tryRedis(redis, (r) => (found ? r.set(`auth:${hash}`, found.entry, "PX", found.ttlMs, "NX") : r.set(`auth:${hash}`, UNKNOWN, "PX", UNKNOWN_CACHE_MS, "NX")));
}
