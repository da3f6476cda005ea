/**
 * The platform of a fault run: PostgreSQL with fsync, Redis without persistence, and every function in a process of its own from its own
 * bundle, as deployed but with failpoints kept. The provider and the object store are never faulted. It is one list of what there is, and how it
 * hangs together, and longer than a file should be for that.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { startFauxqs } from "fauxqs";
import { Redis } from "ioredis";
import pg from "pg";
import ticketProcessor from "../../functions/plugins/ticket-processor/ticket-processor.ts";
import { bundle } from "../../scripts/build/bundle.ts";
import type { Target } from "../../scripts/build/targets.ts";
import { build } from "../../scripts/build.ts";
import { freePort } from "../../scripts/local/child.ts";
import { migrate } from "../../scripts/migrate.ts";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { openKeyRing } from "../../shared/access/key-ring.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { randomHex } from "../../shared/ids.ts";
import { EMBEDDING_DIMENSIONS } from "../../shared/models/embedder.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import type { Manifest } from "../../shared/sdk/src/manifest.ts";
import { openObjectStore } from "../../shared/storage/object-store.ts";
import { startPostgres } from "../support/postgres.ts";
import { publishUnsigned } from "../support/publish-unsigned.ts";
import { type Backup, backUp } from "./backup.ts";
import { BREAKS, type Break, breakCode, breakDatabase } from "./breaks.ts";
import { type Front, startFront } from "./front.ts";
import { type Embeddings, startEmbeddings, startTool } from "./outside.ts";
import plugin, { FILER } from "./plugin.ts";
import { type PostgresProxy, startPostgresProxy } from "./postgres-proxy.ts";
import { startProvider } from "./provider.ts";
import { type Receivers, startReceivers } from "./receivers.ts";
import type { Sources } from "./records.ts";
import { type RedisServer, startRedisServer } from "./redis-server.ts";
import { type StoreDoor, startStoreDoor } from "./store-door.ts";
import { Supervised } from "./supervisor.ts";
import { openTenants, type Tenants } from "./tenants.ts";
import { startWire, type Wire } from "./wire.ts";

export const LEASE_MS = 2_000;
/** Executions that the second tenant may have: fewer than it will ask for. */
export const QUOTA = 12;

const BUCKET = "aau-artifacts";
const FUNCTIONS = [
  ...["task-submit", "task-poll", "task-cancel", "task-execute", "llm-gateway", "scope-gateway", "wake", "artifact-upload", "bridge", FILER],
  ...["webhook-deliver", "billing-aggregate", "erasure-request", "user-erase", "api-key-revoke", "key-upkeep", "migrate"],
] as const;
/** Two executors, so that somebody can take over from a stopped one. */
const PROCESSES = [
  "task-submit",
  "task-poll",
  "task-cancel",
  "task-execute-1",
  "task-execute-2",
  "llm-gateway",
  "scope-gateway",
  "wake",
  "artifact-upload",
  "bridge",
  "plugin",
  "ticket-processor",
  "webhook-deliver",
  "billing-aggregate-1",
  "billing-aggregate-2",
  "erasure-request",
  "user-erase",
  "api-key-revoke",
  "key-upkeep",
] as const;
export type ProcessName = (typeof PROCESSES)[number];
/** These speak to PostgreSQL through the proxy. */
const BEHIND_PROXY = new Set<string>(["task-submit", "task-cancel", "task-execute", "llm-gateway", "scope-gateway", "webhook-deliver", "user-erase", "api-key-revoke"]);
/** And these through one of their own: each COMMIT there is one of theirs. */
const BEHIND_OWN_PROXY = new Set<string>(["billing-aggregate"]);

export interface FaultPlatform {
  processes: Readonly<Record<ProcessName, Supervised>>;
  postgres: PostgresProxy;
  billingPostgres: PostgresProxy;
  /** PostgreSQL itself. */
  database: { crash(downMs: number): Promise<void>; backUp(): Promise<Backup>; url: string };
  redis: RedisServer;
  /** What stands before Redis, and before the object store. */
  redisWire: Wire;
  store: StoreDoor;
  embeddings: Embeddings;
  receivers: Receivers;
  tenants: Tenants;
  /** The public API. */
  api: Front;
  /** Keys of a tenant without a quota, and of one with `QUOTA`. */
  keys: { unlimited: string; limited: string };
  sources: Sources;
  /** Registers a plugin that listens somewhere, and subscribes the tenant without a quota to it. */
  addPlugin(manifest: Manifest, endpoint: string): Promise<void>;
  /** A process beside the others, that is not started: a function's, or another bundle's. What `env` says goes first. */
  spare(name: string, bundle: string, env?: Record<string, string>): Promise<Supervised>;
  /** Where a bundle starts, and what it finds in its environment, beside its port. */
  bundleOf(name: string): string;
  env: Readonly<Record<string, string>>;
  /** Of the platform's own jobs. */
  serviceToken: string;
  /** A superuser's connection, for looking. */
  look: pg.Pool;
  stop(): Promise<void>;
}

export async function startFaultPlatform({ folder, broken }: { folder: string; broken: Break | null }): Promise<FaultPlatform> {
  const closers: (() => Promise<unknown> | unknown)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) await Promise.resolve(close()).catch((error: unknown) => console.error(error));
  };
  try {
    return { ...(await start(folder, broken, closers)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(folder: string, broken: Break | null, closers: (() => Promise<unknown> | unknown)[]): Promise<Omit<FaultPlatform, "stop">> {
  const logs = join(folder, "logs");
  mkdirSync(logs, { recursive: true });
  const [server, bundles, s3] = await Promise.all([
    startPostgres({ durable: true, flags: broken ? BREAKS[broken].postgresFlags : [] }),
    buildAll(folder, broken),
    startFauxqs({ port: 0, logger: false }),
  ]);
  closers.push(
    () => server.stop(),
    () => s3.stop(),
  );
  await server.createDatabase("aau_faults");
  const databaseUrl = new URL(server.url);
  databaseUrl.pathname = "/aau_faults";
  await migrate(databaseUrl.href);
  if (broken) await breakDatabase(databaseUrl.href, broken);
  const look = new pg.Pool({ connectionString: databaseUrl.href, max: 3 });
  // A crash of the server is one of the faults; the next look opens another connection.
  look.on("error", () => {});
  closers.push(() => look.end());

  const postgres = await startPostgresProxy({ host: "127.0.0.1", port: Number(databaseUrl.port) });
  const billingPostgres = await startPostgresProxy({ host: "127.0.0.1", port: Number(databaseUrl.port) });
  closers.push(
    () => postgres.close(),
    () => billingPostgres.close(),
  );
  const through = (proxy: PostgresProxy) => Object.assign(new URL(databaseUrl), { port: String(proxy.port) }).href;
  const redis = await startRedisServer(folder);
  closers.push(() => redis.stop());
  const redisWire = await startWire({ host: "127.0.0.1", port: Number(new URL(redis.url).port) });
  const door = await startStoreDoor(`http://127.0.0.1:${s3.port}`);
  closers.push(
    () => redisWire.close(),
    () => door.close(),
  );

  const sources: Sources = {
    journalFile: join(folder, "journal.jsonl"),
    databaseUrl: databaseUrl.href,
    ledgerFile: join(folder, "ledger.jsonl"),
    markersFile: join(folder, "markers.jsonl"),
    effectsFile: join(folder, "effects.jsonl"),
    heardFile: join(folder, "heard.jsonl"),
    logFolder: logs,
    s3: { endpoint: `http://127.0.0.1:${s3.port}`, bucket: BUCKET },
  };
  const provider = await startProvider(sources, closers);
  const tool = await startTool(sources.effectsFile);
  const embeddings = await startEmbeddings();
  const receivers = await startReceivers(sources.heardFile);
  closers.push(
    () => receivers.close(),
    () => tool.close(),
    () => embeddings.close(),
  );
  const store = openObjectStore({ endpoint: sources.s3.endpoint, bucket: BUCKET, region: "us-east-1", accessKeyId: "test", secretAccessKey: "test" });
  await store.ensureBucket();
  store.close();

  const ports = Object.fromEntries(await Promise.all(PROCESSES.map(async (name) => [name, await freePort()] as const)));
  const portOf = (name: ProcessName) => ports[name] ?? 0;
  const running = new Map<ProcessName, Supervised>();
  const upPorts = (...names: ProcessName[]) => names.flatMap((name) => (running.get(name)?.isUp ? [portOf(name)] : []));
  const byMethod: Record<string, ProcessName> = { POST: "task-submit", GET: "task-poll", DELETE: "task-cancel" };
  const byPath: readonly [string, ProcessName][] = [
    ["/v1/gdpr/erasure-request", "erasure-request"],
    ["/v1/api-keys/", "api-key-revoke"],
  ];
  const api = await startFront((method, path) => upPorts(byPath.find(([start]) => path.startsWith(start))?.[1] ?? byMethod[method] ?? "task-poll"));
  const executors = await startFront(() => upPorts("task-execute-1", "task-execute-2"));
  closers.push(
    () => api.close(),
    () => executors.close(),
  );

  const [serviceToken, secretsKey] = [randomHex(), randomHex()];
  const shared: Record<string, string> = {
    LOG_LEVEL: "warn",
    DATABASE_POOL: "5",
    REDIS_URL: `redis://127.0.0.1:${redisWire.port}`,
    S3_ENDPOINT: door.url,
    S3_BUCKET: BUCKET,
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    ANTHROPIC_API_KEY: "scripted",
    ANTHROPIC_BASE_URL: provider,
    OPENAI_API_KEY: "scripted",
    OPENAI_BASE_URL: embeddings.url,
    TOOL_URL: tool.url,
    CAPABILITY_KEY: randomHex(),
    SECRETS_KEY: secretsKey,
    AAU_ALLOW_PRIVATE_WEBHOOKS: "true",
    SERVICE_TOKEN: serviceToken,
    FUNCTION_URLS: `task-execute=${executors.url},${(["webhook-deliver", "user-erase"] as const).map((name) => `${name}=http://127.0.0.1:${portOf(name)}`).join(",")}`,
    TASK_LEASE_MS: String(LEASE_MS),
    DRAIN_MS: "5000",
    LLM_GATEWAY_URL: `http://127.0.0.1:${portOf("llm-gateway")}`,
    SCOPE_GATEWAY_URL: `http://127.0.0.1:${portOf("scope-gateway")}`,
  };
  const databaseOf = (fn: string) => (BEHIND_PROXY.has(fn) ? through(postgres) : BEHIND_OWN_PROXY.has(fn) ? through(billingPostgres) : databaseUrl.href);
  const processes = Object.fromEntries(
    PROCESSES.map((name) => {
      const fn = name.replace(/-\d$/, "");
      const env = { ...shared, DATABASE_URL: databaseOf(fn) };
      return [name, new Supervised({ name, args: [bundles.get(fn) ?? ""], env, port: portOf(name) }, logs)];
    }),
  ) as Record<ProcessName, Supervised>;
  for (const name of PROCESSES) running.set(name, processes[name]);
  closers.push(() => Promise.all(PROCESSES.map((name) => processes[name].stop("SIGKILL"))));

  const db = await openDatabase({ url: databaseUrl.href, driver: "pg", poolSize: 2 });
  closers.push(() => db.close());
  const tenants = openTenants(db, receivers, openKeyRing({ id: "k1", key: secretsKey }));
  const keys = await seed(databaseUrl.href, tenants, { [plugin.name]: `http://127.0.0.1:${portOf("plugin")}`, [FILER]: `http://127.0.0.1:${portOf(FILER)}` });
  // Two at a time: on two cores more would only wait for each other.
  for (let i = 0; i < PROCESSES.length; i += 2) await Promise.all(PROCESSES.slice(i, i + 2).map((name) => processes[name].start()));
  for (const name of ["wake", "artifact-upload"] as const) closers.push(startTimer(processes[name].port, serviceToken));
  return {
    processes,
    postgres,
    billingPostgres,
    database: { crash: (downMs) => server.crash(downMs), backUp: () => backUp(server, databaseUrl), url: databaseUrl.href },
    redis,
    redisWire,
    store: door,
    embeddings,
    receivers,
    tenants,
    serviceToken,
    bundleOf: (name) => bundles.get(name) ?? "",
    env: { ...shared, DATABASE_URL: databaseUrl.href },
    async spare(name, bundleName, env = {}) {
      const port = await freePort();
      const args = [bundles.get(bundleName) ?? ""];
      const spare = new Supervised({ name, args, env: { ...shared, DATABASE_URL: databaseUrl.href, ...env }, port }, logs);
      closers.push(() => spare.stop("SIGKILL"));
      return spare;
    },
    api,
    keys,
    sources,
    addPlugin: (manifest, endpoint) => addPlugin(databaseUrl.href, redis.url, manifest, endpoint),
    look,
  };
}

/** Where each bundle starts, by name. */
async function buildAll(folder: string, broken: Break | null): Promise<Map<string, string>> {
  const outdir = join(folder, "bundles");
  const plugins = broken ? [breakCode(broken)] : [];
  const bundles = await build({ functions: FUNCTIONS, outdir, failpoints: true, plugins });
  const source = `export { start } from "./test/faults/plugin-entry.ts";`;
  const target: Target = { name: "plugin", folder: "plugin", form: "cached", entry: "index.mjs", source };
  bundles.push(...(await bundle([target], { outdir, failpoints: true, codeCache: true, developmentPackages: [] })));
  return new Map(bundles.map(({ name, entry }) => [name, entry]));
}

// Callers name the plugin, so nothing is ever compared with its vectors.
const blind = { model: "none", embed: async (texts: readonly string[]) => texts.map(() => new Float32Array(EMBEDDING_DIMENSIONS)) };
export const UNLIMITED = { name: "unlimited", tier: "professional", settings: { rate_limits: { per_tenant: 100_000, per_plugin: 100_000 } } } as const;

async function addPlugin(databaseUrl: string, redisUrl: string, manifest: Manifest, endpoint: string): Promise<void> {
  const db = await openDatabase({ url: databaseUrl, driver: "pg", poolSize: 1 });
  const redis = new Redis(redisUrl);
  try {
    const generation = await publishUnsigned(db, blind, manifest, endpoint);
    await seedTenant(db, { ...UNLIMITED, subscriptions: { [manifest.name]: null } });
    await announceGeneration(redis, generation);
  } finally {
    redis.disconnect();
    await db.close();
  }
}

async function seed(databaseUrl: string, tenants: Tenants, urls: Readonly<Record<string, string>>): Promise<FaultPlatform["keys"]> {
  const db = await openDatabase({ url: databaseUrl, driver: "pg", poolSize: 1 });
  try {
    for (const { manifest } of [plugin, ticketProcessor]) await publishUnsigned(db, blind, manifest, urls[manifest.name] ?? "");
  } finally {
    await db.close();
  }
  const unlimited = await tenants.add({ ...UNLIMITED, subscriptions: { [plugin.name]: null, [FILER]: null } });
  const limited = await tenants.add({ ...UNLIMITED, name: "limited", subscriptions: { [plugin.name]: QUOTA } });
  // One that is well, for each: whatever ends in a run, they have to be told.
  for (const { tenantId } of [unlimited, limited]) await tenants.addEndpoint(tenantId);
  return { unlimited: unlimited.key, limited: limited.key };
}

/** What the schedule does in a cluster, and more often. */
function startTimer(port: number, serviceToken: string): () => void {
  const timer = setInterval(() => {
    fetch(`http://127.0.0.1:${port}/`, { method: "POST", headers: { authorization: `Bearer ${serviceToken}` }, signal: AbortSignal.timeout(10_000) })
      .then((answer) => answer.arrayBuffer())
      .catch(() => {});
  }, 1_000);
  return () => clearInterval(timer);
}
