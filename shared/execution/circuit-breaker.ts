/**
 * A circuit breaker per plugin and version: three failed executions in a row open it for a minute, then one caller probes. Its state is a
 * hash in Redis, each transition is one script, and the clock is Redis's. Without Redis the circuit counts as closed: work goes on.
 *
 * Only executions count, each once, after its own retries. Those that end through their caller's mistake neither count nor reset:
 * that a plugin can refuse bad input says nothing about the model or the server that it needs for good input. The same holds for
 * executions that were cancelled or handed back.
 */
import { randomUUID } from "node:crypto";
import type { Redis, Result } from "ioredis";
import * as v from "valibot";
import { tryRedis } from "../redis/availability.ts";

export interface PluginVersion {
  plugin: string;
  version: string;
}

export type CircuitState = "closed" | "open" | "half_open";
export type Verdict = "success" | "failure" | "neutral";

/** Leave to call the plugin, or how long to wait for it. A probe's token is what lets its verdict close the circuit. */
export type Permit = { mayCall: true; state: CircuitState; probe: string } | { mayCall: false; state: CircuitState; retryAfterMs: number };

const FAILURES_TO_OPEN = 3;
const COOLDOWN_MS = 60_000;
/** Longer than any cooldown and any probe, so that the key never expires in the middle of either. */
const FORGET_MS = 3_600_000;
/** Those who wait for somebody else's probe ask again after this, however long the probe may take. */
const ASK_AGAIN_MS = 10_000;

const HEAD = `
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function open(key, cooldown, forget)
  redis.call('DEL', key)
  redis.call('HSET', key, 'state', 'open', 'until', now() + cooldown)
  redis.call('PEXPIRE', key, forget)
end
local state = redis.call('HGET', KEYS[1], 'state') or 'closed'
`;

// ARGV: token, ms that the probe may take, ms until those who wait ask again, ms until the key is forgotten.
const ASK = `${HEAD}
if state == 'closed' then return {'closed', 1, 0} end
local at = now()
if state == 'open' then
  local left = tonumber(redis.call('HGET', KEYS[1], 'until')) - at
  if left > 0 then return {'open', 0, left} end
end
local taken = tonumber(redis.call('HGET', KEYS[1], 'probe_until') or '0') - at
if taken > 0 then return {'half_open', 0, math.min(taken, tonumber(ARGV[3]))} end
redis.call('HSET', KEYS[1], 'state', 'half_open', 'probe', ARGV[1], 'probe_until', at + tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'half_open', 1, 0}
`;

// ARGV: the probe's token or '', verdict, failures that open, cooldown, ms until the key is forgotten.
// Once the circuit is open, a call that began before says nothing new: only the probe's verdict counts.
const TELL = `${HEAD}
if state == 'closed' then
  if ARGV[2] == 'success' then
    redis.call('DEL', KEYS[1])
  elseif ARGV[2] == 'failure' then
    local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
    if failures >= tonumber(ARGV[3]) then
      open(KEYS[1], tonumber(ARGV[4]), tonumber(ARGV[5]))
      return 'open'
    end
  end
  return 'closed'
end
if ARGV[1] == '' or redis.call('HGET', KEYS[1], 'probe') ~= ARGV[1] then return state end
if ARGV[2] == 'success' then
  redis.call('DEL', KEYS[1])
  return 'closed'
end
if ARGV[2] == 'failure' then
  open(KEYS[1], tonumber(ARGV[4]), tonumber(ARGV[5]))
  return 'open'
end
redis.call('HDEL', KEYS[1], 'probe', 'probe_until')
return state
`;

// ARGV: cooldown, ms until the key is forgotten.
const TRIP = `${HEAD}
if state == 'closed' then open(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])) return 'open' end
return state
`;

const LOOK = `${HEAD}
if state == 'open' and tonumber(redis.call('HGET', KEYS[1], 'until')) <= now() then return 'half_open' end
return state
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauCircuitAsk(key: string, token: string, probeMs: number, askAgainMs: number, forgetMs: number): Result<unknown, Context>;
    aauCircuitTell(key: string, token: string, verdict: Verdict, failures: number, cooldownMs: number, forgetMs: number): Result<unknown, Context>;
    aauCircuitTrip(key: string, cooldownMs: number, forgetMs: number): Result<unknown, Context>;
    aauCircuitLook(key: string): Result<unknown, Context>;
  }
}

const State = v.picklist(["closed", "open", "half_open"]);
const Asked = v.tuple([State, v.number(), v.number()]);
const CLOSED: Permit = { mayCall: true, state: "closed", probe: "" };

export const circuitKey = ({ plugin, version }: PluginVersion): string => `circuit:${plugin}:${version}`;

const prepared = new WeakSet<Redis>();

function withScripts(redis: Redis): Redis {
  if (!prepared.has(redis)) {
    prepared.add(redis);
    redis.defineCommand("aauCircuitAsk", { numberOfKeys: 1, lua: ASK });
    redis.defineCommand("aauCircuitTell", { numberOfKeys: 1, lua: TELL });
    redis.defineCommand("aauCircuitTrip", { numberOfKeys: 1, lua: TRIP });
    redis.defineCommand("aauCircuitLook", { numberOfKeys: 1, lua: LOOK });
  }
  return redis;
}

/** Asked before each execution. `probeMs` is the longest that this one may take, after which another caller may probe. */
export async function askCircuit(redis: Redis, of: PluginVersion, probeMs: number): Promise<Permit> {
  const token = randomUUID();
  const answer = await tryRedis(withScripts(redis), (r) => r.aauCircuitAsk(circuitKey(of), token, Math.round(probeMs), ASK_AGAIN_MS, FORGET_MS));
  if (answer === null) return CLOSED;
  const [state, mayCall, retryAfterMs] = v.parse(Asked, answer);
  if (mayCall === 0) return { mayCall: false, state, retryAfterMs };
  return { mayCall: true, state, probe: state === "half_open" ? token : "" };
}

/** Told once for each permit. The state that holds now; `closed` without Redis. */
export async function tellCircuit(redis: Redis, of: PluginVersion, permit: Permit & { mayCall: true }, verdict: Verdict): Promise<CircuitState> {
  // What says nothing has nothing to write, unless it gives a probe back.
  if (verdict === "neutral" && permit.probe === "") return permit.state;
  const answer = await tryRedis(withScripts(redis), (r) => r.aauCircuitTell(circuitKey(of), permit.probe, verdict, FAILURES_TO_OPEN, COOLDOWN_MS, FORGET_MS));
  return answer === null ? "closed" : v.parse(State, answer);
}

/** Opens a closed circuit: the plugin says of itself that it is not well. A probe that is under way is not disturbed. */
export async function tripCircuit(redis: Redis, of: PluginVersion): Promise<CircuitState> {
  const answer = await tryRedis(withScripts(redis), (r) => r.aauCircuitTrip(circuitKey(of), COOLDOWN_MS, FORGET_MS));
  return answer === null ? "closed" : v.parse(State, answer);
}

export async function tripUnhealthy(redis: Redis, plugin: string, versions: readonly string[]): Promise<void> {
  await Promise.all(versions.map((version) => tripCircuit(redis, { plugin, version })));
}

/** For those who show it: `half_open` also when the cooldown is over and nobody has probed yet. Null without Redis. */
export async function lookAtCircuits(redis: Redis, of: readonly PluginVersion[]): Promise<CircuitState[] | null> {
  const answers = await tryRedis(withScripts(redis), (r) => Promise.all(of.map((one) => r.aauCircuitLook(circuitKey(one)))));
  return answers && v.parse(v.array(State), answers);
}
