/** What all parts of the bench stand on: real servers, a migrated database, tenants with keys, production bundles. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import pg from "pg";
import { build } from "../../scripts/build.ts";
import { startRedis } from "../../scripts/local/redis.ts";
import { migrate } from "../../scripts/migrate.ts";
import { seedKey, seedTenant } from "../../scripts/seed-tenant.ts";
import { hashApiKey } from "../../shared/access/api-key.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { randomHex } from "../../shared/ids.ts";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import type { Plugin } from "../../shared/sdk/src/define-plugin.ts";
import { startPostgres } from "../support/postgres.ts";
import { publishUnsigned } from "../support/publish-unsigned.ts";
import { type Load, startLoad } from "./load.ts";
import { cpuMs, peakKib, type Started, startNode } from "./node-process.ts";

export const TENANTS = 50;
const HERE = fileURLToPath(new URL(".", import.meta.url));

export interface BenchTenant {
  tenantId: string;
  key: string;
}

export interface Stage {
  folder: string;
  tenants: readonly BenchTenant[];
  /** Settings that every process of the platform gets. */
  env: Readonly<Record<string, string>>;
  db: pg.Pool;
  redis: Redis;
  load: Load;
  redisPeakKib(): number;
  /** Notes the processor time of the servers and of these processes; the function that comes back says what was spent since, in ms. */
  meter(processes: readonly Started[]): Promise<() => Promise<{ processes: number; postgres: number; redis: number }>>;
  /** Bundles these functions of the platform, or the bench's plugins, as the image holds them; says where each starts. */
  bundle(names: readonly string[]): Promise<Map<string, string>>;
  /** Starts a function from its bundle, or a floor from its file. */
  start(name: string, env?: Readonly<Record<string, string>>): Promise<Started>;
  /** Makes the plugin known, at this address, to all tenants. */
  register(plugin: Plugin, endpoint: string): Promise<void>;
  /** The same starting point for every round: empty tables and streams, nothing left to be written behind the measurement. */
  clear(): Promise<void>;
  stop(): Promise<void>;
}

const FLOOR_TABLE = `
CREATE TABLE floor_tasks (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, plugin text NOT NULL, input jsonb NOT NULL, status text NOT NULL, result jsonb,
  created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX floor_tasks_of_tenant ON floor_tasks (tenant_id, id)`;

export async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), "aau-bench-"));
  const logs = join(folder, "logs");
  await mkdir(logs);
  const closers: (() => unknown)[] = [() => rm(folder, { recursive: true, force: true })];
  const stop = async () => {
    for (const close of closers.reverse()) await Promise.resolve(close()).catch(() => {});
  };
  try {
    // An empty database of the reader's own, for parts that need pgvector: the embedded server has none.
    const own = process.env.BENCH_DATABASE_URL;
    const postgres = own ? { url: own, stop: async () => {} } : await startPostgres({ durable: true, flags: ["-c", "max_wal_size=4GB", "-c", "checkpoint_timeout=30min"] });
    closers.push(() => postgres.stop());
    const redisServer = await startRedis(join(folder, "redis"), { persist: true });
    closers.push(() => redisServer.stop());
    await migrate(postgres.url);
    const db = new pg.Pool({ connectionString: postgres.url, max: 2 });
    closers.push(() => db.end());
    await db.query(FLOOR_TABLE);
    // As in production, processes log in as nobody special: a superuser that changes its role tells the client so, twice a statement.
    await db.query("CREATE ROLE bench LOGIN PASSWORD 'bench'; GRANT aau_app, aau_platform TO bench; GRANT ALL ON floor_tasks TO bench");
    const login = new URL(postgres.url);
    login.username = "bench";
    login.password = "bench";
    const redis = new Redis(redisServer.url);
    closers.push(() => redis.disconnect());
    const platform = await openDatabase({ url: postgres.url, driver: "pg", poolSize: 2 });
    closers.push(() => platform.close());
    const tenants = await seedTenants(platform, redis);
    const load = startLoad();
    closers.push(() => load.stop());

    const env = {
      DATABASE_URL: login.href,
      // Both sides have as many connections; more only make two cores switch more often.
      DATABASE_POOL: process.env.DATABASE_POOL ?? "8",
      REDIS_URL: redisServer.url,
      CAPABILITY_KEY: randomHex(),
      SECRETS_KEY: randomHex(),
      SERVICE_TOKEN: randomHex(),
      ADMISSION_KEY: randomHex(),
      // Nothing listens there: no task of the bench calls a model or stores an artifact.
      LLM_GATEWAY_URL: "http://127.0.0.1:9",
      SCOPE_GATEWAY_URL: "http://127.0.0.1:9",
    };
    const entries = new Map<string, string>();
    return {
      folder,
      tenants,
      env,
      db,
      redis,
      load,
      async meter(processes) {
        const redisPid = redisServer.child.process.pid ?? 0;
        const own = () => processes.reduce((sum, process) => sum + process.cpuMs(), 0);
        const backends = async () => {
          const { rows } = await db.query("SELECT pid FROM pg_stat_activity");
          return new Map(rows.map((row) => [Number(row.pid), cpuMs(Number(row.pid))]));
        };
        const before = { own: own(), redis: cpuMs(redisPid), postgres: await backends() };
        return async () => {
          let postgresMs = 0;
          for (const [pid, ms] of await backends()) postgresMs += ms - (before.postgres.get(pid) ?? 0);
          return { processes: own() - before.own, postgres: postgresMs, redis: cpuMs(redisPid) - before.redis };
        };
      },
      redisPeakKib: () => peakKib(redisServer.child.process.pid ?? 0),
      async bundle(names) {
        const missing = names.filter((name) => !entries.has(name));
        const own = missing.filter((name) => name.startsWith("bench-"));
        const others = missing.filter((name) => !name.startsWith("bench-"));
        const outdir = join(folder, "dist");
        const bundles = [...(others.length > 0 ? await build({ functions: others, outdir }) : []), ...(own.length > 0 ? await build({ functions: own, outdir, root: HERE }) : [])];
        for (const { name, entry } of bundles) entries.set(name, entry);
        return entries;
      },
      async start(name, more = {}) {
        const entry = entries.get(name);
        if (entry) return startNode({ name, args: [entry], env: { ...env, ...more }, folder: logs, readiness: "/health/readiness" });
        return startNode({ name, args: ["--import", "tsx", join(HERE, "floors", `${name}.ts`)], env: { ...env, ...more }, folder: logs, readiness: "/ready" });
      },
      async register(plugin, endpoint) {
        const generation = await publishUnsigned(platform, offlineEmbedder(), plugin.manifest, endpoint);
        await redis.set("registry:gen", generation, "EX", 60);
        await db.query(
          `INSERT INTO subscriptions (id, tenant_id, plugin_id, tier) SELECT gen_random_uuid(), t.id, p.id, 'enterprise' FROM tenants t, plugins p WHERE p.name = $1
           ON CONFLICT (tenant_id, plugin_id) WHERE ended_at IS NULL DO NOTHING`,
          [plugin.name],
        );
      },
      async clear() {
        await db.query("TRUNCATE floor_tasks, tasks, usage_periods, usage_days, idempotency_keys, execution_events CASCADE");
        const streams = [...(await redis.keys("stream:*")), ...(await redis.keys("floor:tasks")), ...(await redis.keys("rate:*"))];
        for (const stream of streams) {
          if ((await redis.type(stream)) === "stream") await redis.xtrim(stream, "MAXLEN", 0);
          else await redis.del(stream);
        }
        await db.query("CHECKPOINT");
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function seedTenants(platform: Awaited<ReturnType<typeof openDatabase>>, redis: Redis): Promise<BenchTenant[]> {
  const tenants: BenchTenant[] = [];
  const limit = 100_000_000;
  for (let i = 0; i < TENANTS; i++) {
    const { tenantId, userId } = await seedTenant(platform, {
      name: `bench-${i}`,
      tier: "enterprise",
      settings: { rate_limits: { per_tenant: limit, per_plugin: limit } },
      subscriptions: {},
    });
    const { key } = await seedKey(platform, tenantId, { userId });
    await redis.set(`floor:auth:${hashApiKey(key)}`, JSON.stringify({ t: tenantId, l: limit, q: limit }));
    tenants.push({ tenantId, key });
  }
  return tenants;
}
