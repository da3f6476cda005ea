/** (keys) What it costs to know a caller: a key that is cached, one that is not, and a plugin's rate window, beside a Lua call of the least that can be done. */

import { once } from "node:events";
import { type Doorkeeper, openDoorkeeper } from "../../shared/access/admission.ts";
import { hashApiKey } from "../../shared/access/api-key.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { median, millis, quantile, ratio, table, whole } from "./figures.ts";
import type { Part } from "./part.ts";
import type { BenchTenant, Stage } from "./stage.ts";

const AT_ONCE = 32;
const CALLS = 20_000;
const COLD_CALLS = 2_000;
const ROUNDS = 3;

/** Look up and count, without a window that slides, a registry, a route or a generation. */
const FLOOR = `
local auth = redis.call('GET', KEYS[1])
if not auth then return {0} end
local caller = cjson.decode(auth)
local rate = redis.call('INCR', 'floor:rate:' .. caller.t)
if rate == 1 then redis.call('PEXPIRE', 'floor:rate:' .. caller.t, 60000) end
return {rate > caller.l and 1 or 2, caller.t}
`;

export const keys: Part = {
  letter: "keys",
  title: `a key check in one process, ${AT_ONCE} at once, ${ROUNDS} × ${whole(CALLS)} calls (${whole(COLD_CALLS)} where PostgreSQL is asked), medians`,

  async run(stage, print) {
    await stage.clear();
    const redis = connectRedis(stage.env.REDIS_URL ?? "");
    if (redis.status !== "ready") await once(redis, "ready");
    const db = await openDatabase({ url: stage.env.DATABASE_URL ?? "", driver: "pg", poolSize: Number(stage.env.DATABASE_POOL) });
    try {
      redis.defineCommand("benchFloor", { numberOfKeys: 1, lua: FLOOR });
      const floor: (key: string) => Promise<unknown> = Reflect.get(redis, "benchFloor").bind(redis);
      const door = openDoorkeeper(redis, db);
      const lost: string[] = [];
      const admitted = async (tenant: BenchTenant, how: Promise<{ rate: { admitted: boolean } } | null>) => {
        if (!(await how)?.rate.admitted) lost.push(`${tenant.tenantId} was refused`);
      };
      const ways: { name: string; calls: number; call(tenant: BenchTenant): Promise<unknown> }[] = [
        { name: "floor: one Lua call", calls: CALLS, call: ({ key }) => floor(`floor:auth:${hashApiKey(key)}`) },
        { name: "key check, cached", calls: CALLS, call: (tenant) => admitted(tenant, door.admit(tenant.key)) },
        { name: "key check and a plugin's window", calls: CALLS, call: (tenant) => admitted(tenant, door.admit(tenant.key, { plugin: "bench-noop" })) },
        { name: "a plugin's window alone", calls: CALLS, call: await windowAlone(door, stage) },
        { name: "key check, not cached", calls: COLD_CALLS, call: (tenant) => redis.del(`auth:${hashApiKey(tenant.key)}`).then(() => admitted(tenant, door.admit(tenant.key))) },
      ];
      const rounds = ways.map(() => [] as { rate: number; p50: number; p99: number }[]);
      for (let round = 0; round < ROUNDS; round++) for (const [at, way] of ways.entries()) rounds[at]?.push(await measure(stage, way.calls, way.call));
      const middle = (at: number, of: "rate" | "p50" | "p99") => median((rounds[at] ?? []).map((round) => round[of]));
      print(
        table(
          ["", "a second", "of the floor", "p50", "p99"],
          ways.map(({ name }, at) => [name, whole(middle(at, "rate")), ratio(middle(at, "rate") / middle(0, "rate")), millis(middle(at, "p50")), millis(middle(at, "p99"))]),
        ),
      );
      return lost.slice(0, 5);
    } finally {
      redis.disconnect();
      await db.close();
    }
  },
};

async function windowAlone(door: Doorkeeper, stage: Stage): Promise<(tenant: BenchTenant) => Promise<unknown>> {
  const callers = new Map(await Promise.all(stage.tenants.map(async ({ key }) => [key, (await door.admit(key))?.caller] as const)));
  return async ({ key }) => {
    const caller = callers.get(key);
    return caller && door.admitToPlugin(caller, "bench-noop");
  };
}

async function measure(stage: Stage, calls: number, call: (tenant: BenchTenant) => Promise<unknown>): Promise<{ rate: number; p50: number; p99: number }> {
  const times: number[] = [];
  let next = 0;
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (next < calls) {
        const tenant = stage.tenants[next++ % stage.tenants.length];
        if (!tenant) return;
        const at = performance.now();
        await call(tenant);
        times.push(performance.now() - at);
      }
    }),
  );
  const tookMs = performance.now() - startedAt;
  times.sort((a, b) => a - b);
  return { rate: (calls / tookMs) * 1000, p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
}
