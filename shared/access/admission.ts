/**
 * Who may come in, and how often: one Lua call reads the cached key, counts the request in the tenant's sliding window, and for
 * a submit also reads the route cache and counts in the plugin's window. Cache and table are looked up by the hash of the whole key.
 * The scripts and the reader of their answers stand together: each is only right beside the other.
 */
import type { Redis, Result } from "ioredis";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { asId } from "../ids.ts";
import { tryRedis } from "../redis/availability.ts";
import { hashApiKey, looksLikeApiKey } from "./api-key.ts";
import { type Caller, Environment, PlanTier, Scope } from "./caller.ts";
import { CACHE_MS, fillKeyCache, type KeyEntry, READ_ENTRY } from "./key-cache.ts";
import { localWindows } from "./local-windows.ts";
import { rateLimitsOf } from "./rate-limits.ts";
import { Role, scopesOf } from "./roles.ts";

export const WINDOW_MS = 60_000;
/** A key that changes while it is looked up is looked up again, this often. */
const MAX_LOOK_UPS = 3;

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
const ADMIT = `${TAKE}${READ_ENTRY}
local auth = redis.call('GET', KEYS[1])
local caller = living(auth)
if not caller then return {0, epoch()} end
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

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauAdmit(authKey: string, windowMs: number, plugin: string, commandDigest: string): Result<unknown, Context>;
    aauTake(key: string, windowMs: number, limit: number): Result<unknown, Context>;
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
      let found: FoundKey | null = null;
      for (let lookUps = 0; ; lookUps++) {
        const answer = await ask(hash, hint);
        if (answer?.kind === "refused") return null;
        if (answer?.kind === "admission") return { ...answer.admission, cacheHit: lookUps === 0 };
        if (lookUps === MAX_LOOK_UPS) break;
        found = await findKey(db, hash);
        if (!answer) break;
        FAILPOINT: await failpoint("key.before_fill");
        await fillKeyCache(redis, hash, answer.epoch, found && { ...found, tenantId: found.caller.tenantId });
        if (!found) return null;
      }
      // Redis is away, or loses every entry at once: PostgreSQL has said who it is, and a window of this process stands in.
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

function prepare(redis: Redis): void {
  if ("aauAdmit" in redis && typeof redis.aauAdmit === "function") return;
  redis.defineCommand("aauAdmit", { numberOfKeys: 1, lua: ADMIT });
  redis.defineCommand("aauTake", { numberOfKeys: 1, lua: TAKE_ONE });
}

const CacheEntry = v.object({
  k: v.string(),
  t: v.string(),
  g: v.string(),
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
  v.strictTuple([v.literal(0), v.string()]),
  v.strictTuple([v.literal(1)]),
  v.strictTuple([v.literal(2), v.string(), v.number(), v.number(), v.number(), v.string(), v.string()]),
  v.strictTuple([v.literal(2), v.string(), v.number(), v.number(), v.number(), v.string(), v.string(), v.number(), v.number(), v.number()]),
]);

function rateState([admitted, remaining, resetMs]: v.InferOutput<typeof Take>, limit: number): RateState {
  return { admitted: admitted === 1, limit, remaining, resetMs };
}

function parseAnswer(raw: unknown): { kind: "miss"; epoch: string } | { kind: "refused" } | { kind: "admission"; admission: Omit<Admission, "cacheHit"> } {
  const answer = v.parse(Answer, raw);
  if (answer[0] === 0) return { kind: "miss", epoch: answer[1] };
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
  role: v.nullable(Role),
  environment: Environment,
  scopes: v.array(v.string()),
  plan_tier: PlanTier,
  settings: v.unknown(),
  generation: v.string(),
  expires_in_ms: v.nullable(v.union([v.number(), v.string()])),
  revoked: v.boolean(),
});

interface FoundKey extends Omit<KeyEntry, "tenantId"> {
  caller: Caller;
}

async function findKey(db: TenantDb, hash: string): Promise<FoundKey | null> {
  const askedAt = performance.now();
  const [raw] = await db.call("SELECT * FROM identify_key($1)", [hash]);
  if (!raw) return null;
  const row = v.parse(KeyRow, raw);
  // Counted from before the question, so that no entry lives longer than its key, however long the answer took.
  const leftMs = row.expires_in_ms === null ? Number.POSITIVE_INFINITY : Number(row.expires_in_ms) - (performance.now() - askedAt);
  if (row.revoked || leftMs <= 0) return null;
  const limits = rateLimitsOf(row.plan_tier, row.settings);
  const allowed: readonly string[] | null = row.role && scopesOf(row.role);
  const text = JSON.stringify({
    k: row.key_id,
    t: row.tenant_id,
    g: row.generation,
    u: row.user_id,
    v: row.environment,
    s: row.scopes.filter((scope) => v.is(Scope, scope) && (allowed === null || allowed.includes(scope))),
    p: row.plan_tier,
    lt: limits.perTenant,
    lp: limits.perPlugin,
  });
  return { caller: callerOf(text), generation: row.generation, text, ttlMs: Math.max(1, Math.floor(Math.min(CACHE_MS, leftMs))) };
}
