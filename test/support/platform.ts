/**
 * The whole platform for one test file: a database and a Redis of its own, every function, the bridge, an S3 server and the
 * plugins that the file brings. Only the model's provider is scripted.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startFauxqs } from "fauxqs";
import { inject } from "vitest";
import { loadFunctions } from "../../scripts/functions.ts";
import { type InProcessPlatform, startInProcess } from "../../scripts/local/in-process.ts";
import { startPglite } from "../../scripts/local/postgres.ts";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { migrate } from "../../scripts/migrate.ts";
import { type KeySeed, type SeededTenant, seedKey, seedTenant } from "../../scripts/seed-tenant.ts";
import type { PlanTier } from "../../shared/access/caller.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { type Bridge, startBridge } from "../../shared/host/bridge/bridge.ts";
import { readConfig } from "../../shared/host/config.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { openSpans } from "../../shared/host/serve.ts";
import { randomHex } from "../../shared/ids.ts";
import type { Plugin } from "../../shared/sdk/src/define-plugin.ts";
import { serve } from "../../shared/sdk/src/serve.ts";
import { openObjectStore } from "../../shared/storage/object-store.ts";
import { openLog } from "../../shared/telemetry/log.ts";
import { type Metrics, openMetrics } from "../../shared/telemetry/metrics.ts";
import { freshDatabase } from "./postgres.ts";

export interface TestTenant extends SeededTenant {
  name: string;
  key: string;
  keyId: string;
  /** Calls the public API with the tenant's key. */
  api(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<ApiAnswer>;
  /** Another key of the same tenant. */
  mintKey(seed?: KeySeed): Promise<{ id: string; key: string }>;
}

export interface ApiAnswer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  body: any;
  text: string;
}

export interface TestPlatform {
  publicUrl: string;
  internalUrl: string;
  serviceToken: string;
  env: Record<string, string>;
  functions: readonly AnyFunction[];
  db: Database;
  redis: LocalRedis;
  platform: InProcessPlatform;
  /** Empty without the bridge. */
  bridgeMetrics: Metrics;
  /** A fresh tenant, subscribed to every plugin of this file unless said. */
  tenant(options?: { tier?: PlanTier; subscriptions?: Record<string, number | null>; settings?: Record<string, unknown> }): Promise<TestTenant>;
  /** Calls the public API with any key, or none. */
  call(method: string, path: string, options?: { key?: string; body?: unknown; rawBody?: string | Uint8Array<ArrayBuffer>; headers?: Record<string, string> }): Promise<ApiAnswer>;
  /** Runs a cron function once. */
  runCron(name: string): Promise<void>;
  /** Registers a plugin that listens somewhere. */
  register(plugin: Plugin, endpoint: string): Promise<void>;
  stop(): Promise<void>;
}

export interface TestPlatformOptions {
  plugins?: readonly Plugin[];
  /** Settings on top of the defaults: the scripted provider's address, shorter leases. */
  env?: Record<string, string>;
  /** Without the bridge tasks stay queued. */
  withBridge?: boolean;
  /** Gets every line that the functions, the bridge and the plugins log, down to `debug`. */
  onLogLine?: (line: string) => void;
  /** On PGlite with pgvector, as `npm run up` is; otherwise on the run's native PostgreSQL, which has no pgvector. */
  withPgvector?: boolean;
  /** A server with the migrated template; the run's own unless said. */
  postgresUrl?: string;
}

export async function startTestPlatform({
  plugins = [],
  env: extra = {},
  withBridge = true,
  withPgvector = false,
  postgresUrl,
  onLogLine,
}: TestPlatformOptions = {}): Promise<TestPlatform> {
  const folder = await mkdtemp(join(tmpdir(), "aau-test-"));
  const [postgres, redis, s3, loaded] = await Promise.all([
    withPgvector ? startPglite(join(folder, "pglite")) : { url: await freshDatabase(postgresUrl ?? inject("postgresUrl")), stop: async () => {} },
    startRedis(folder, { persist: false }),
    startFauxqs({ port: 0, logger: false }),
    loadFunctions({ kinds: ["http", "event", "cron", "gateway"] }),
  ]);
  const databaseUrl = postgres.url;
  if (withPgvector) await migrate(databaseUrl);
  const functions = loaded.map((f) => f.fn).filter((fn): fn is AnyFunction => fn.kind !== "plugin");
  const serviceToken = randomHex();
  const env: Record<string, string> = {
    LOG_LEVEL: "silent",
    DATABASE_URL: databaseUrl,
    DATABASE_POOL: "6",
    REDIS_URL: redis.url,
    S3_ENDPOINT: `http://127.0.0.1:${s3.port}`,
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    CAPABILITY_KEY: randomHex(),
    SECRETS_KEY: randomHex(),
    SERVICE_TOKEN: serviceToken,
    ADMISSION_KEY: randomHex(),
    UNSIGNED_PLUGINS: "allow",
    DRAIN_MS: "5000",
    ...(onLogLine ? { LOG_LEVEL: "debug" } : {}),
    ...extra,
  };
  const config = readConfig(env);
  await openObjectStore({ endpoint: config.S3_ENDPOINT, bucket: config.S3_BUCKET, region: config.AWS_REGION, accessKeyId: "test", secretAccessKey: "test" }).ensureBucket();
  const db = await openDatabase({ url: databaseUrl, driver: "pg", poolSize: 2 });
  const destination = onLogLine && { write: onLogLine };
  const platform = await startInProcess({ functions, config, logTo: destination });
  const services: { close(): Promise<void> }[] = [];
  let bridge: Bridge | null = null;

  async function internal(method: string, path: string, body?: unknown): Promise<Response> {
    const answer = await fetch(`${platform.internalUrl}${path}`, {
      method,
      headers: { authorization: `Bearer ${serviceToken}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.status >= 400) throw new Error(`${method} ${path} answered ${answer.status}: ${await answer.text()}`);
    return answer;
  }

  /** Routable in any case, also where nobody listens: what becomes of such a plugin's tasks is what some tests are about. */
  async function register(plugin: Plugin, endpoint: string): Promise<void> {
    const announce = () => internal("POST", "/internal/registry/register", { manifest: plugin.manifest, endpoint });
    const said: unknown = await (await announce()).json();
    if (typeof said !== "object" || said === null || !("status" in said) || said.status !== "pending") return;
    await db.platform((tx) => tx.updateTable("plugin_versions").set({ status: "active" }).where("status", "=", "pending").where("endpoint", "=", endpoint).execute());
    // The version is known now, so that this tells everybody of it.
    await announce();
  }
  for (const plugin of plugins) {
    const service = await serve(plugin, {
      port: 0,
      llmGatewayUrl: platform.internalUrl,
      scopeGatewayUrl: platform.internalUrl,
      signals: false,
      log: (line) => onLogLine?.(JSON.stringify(line)),
    });
    services.push(service);
    await register(plugin, `http://127.0.0.1:${service.port}`);
  }
  const bridgeMetrics = openMetrics();
  const bridgeSpans = await openSpans(config, "bridge");
  if (withBridge) {
    const bridgeLog = openLog({ service: "bridge", level: onLogLine ? "debug" : "silent", destination });
    bridge = await startBridge(readConfig({ ...env, FUNCTION_URLS: platform.functionUrls }), bridgeLog, bridgeMetrics, bridgeSpans);
  }

  async function call(
    method: string,
    path: string,
    { key, body, rawBody, headers = {} }: { key?: string; body?: unknown; rawBody?: string | Uint8Array<ArrayBuffer>; headers?: Record<string, string> } = {},
  ): Promise<ApiAnswer> {
    const answer = await fetch(`${platform.publicUrl}${path}`, {
      method,
      redirect: "manual",
      headers: { ...(key ? { authorization: `Bearer ${key}` } : {}), ...(body === undefined && rawBody === undefined ? {} : { "content-type": "application/json" }), ...headers },
      body: rawBody ?? (body === undefined ? undefined : JSON.stringify(body)),
    });
    const text = await answer.text();
    let parsed: unknown = null;
    try {
      parsed = JSON.parse(text);
    } catch {}
    return { status: answer.status, headers: answer.headers, body: parsed, text };
  }

  let count = 0;
  return {
    publicUrl: platform.publicUrl,
    internalUrl: platform.internalUrl,
    serviceToken,
    env,
    functions,
    db,
    redis,
    platform,
    bridgeMetrics,
    call,
    register,
    async runCron(name) {
      await internal("POST", `/functions/${name}`);
    },
    async tenant({ tier = "professional", subscriptions, settings } = {}) {
      const name = `tenant-${++count}`;
      const all = Object.fromEntries(plugins.map((plugin) => [plugin.name, null]));
      const seeded = await seedTenant(db, { name, tier, subscriptions: subscriptions ?? all, settings: settings ?? { rate_limits: { per_tenant: 100_000, per_plugin: 100_000 } } });
      const { key, id } = await seedKey(db, seeded.tenantId, { userId: seeded.userId });
      return {
        ...seeded,
        name,
        key,
        keyId: id,
        api: (method, path, body, headers) => call(method, path, { key, body, headers }),
        mintKey: (seed) => seedKey(db, seeded.tenantId, seed),
      };
    },
    async stop() {
      await bridge?.stop();
      await bridgeSpans?.close();
      await platform.stop();
      for (const service of services) await service.close();
      await db.close();
      await postgres.stop();
      await redis.stop();
      await s3.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
