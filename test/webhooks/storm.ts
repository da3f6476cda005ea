/**
 * Many deliveries to endpoints of which many are a burden, while the sender is killed. The receivers keep the only record that counts: each healthy
 * one must have been told every event, signed, under one id. Times are reported, not judged.
 */
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { Webhook } from "standardwebhooks";
import { type Child, freePort, startChild } from "../../scripts/local/child.ts";
import { startRedis } from "../../scripts/local/redis.ts";
import { migrate } from "../../scripts/migrate.ts";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { startBridge } from "../../shared/host/bridge/bridge.ts";
import { readConfig } from "../../shared/host/config.ts";
import { keyRing } from "../../shared/host/resources/secrets.ts";
import { asId, newId, publicId, type TenantId, type WebhookId } from "../../shared/ids.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { openRing } from "../../shared/redis/streams.ts";
import { openLog } from "../../shared/telemetry/log.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";
import { traceparentOf } from "../../shared/telemetry/trace.ts";
import { takeDueWebhooks } from "../../shared/webhooks/due-webhooks.ts";
import { enqueueWebhookEvent } from "../../shared/webhooks/webhook-events.ts";
import { mintWebhookSecret, sealWebhookSecret } from "../../shared/webhooks/webhook-secret.ts";
import { createWebhook } from "../../shared/webhooks/webhooks.ts";
import { type Behaviour, others, WELL } from "./behaviours.ts";

export interface StormOptions {
  databaseUrl: string;
  tenants: number;
  /** Of each tenant; the first tenants' endpoints take turns at being a burden. */
  endpointsEach: number;
  eventsEach: number;
  /** Events per second and all tenants. */
  pace: number;
  /** How often the sender is killed while events come in. */
  kills: number;
}

export interface StormReport {
  deliveries: number;
  endpoints: number;
  healthy: number;
  kills: number;
  /** Events that a healthy endpoint was never told. */
  lost: number;
  badSignatures: number;
  /** Requests beyond the first for one event and endpoint, at healthy ones. */
  repeated: number;
  canaryConnections: number;
  /** From the commit to the first request, at endpoints that are well; milliseconds. */
  firstAttempt: { p50: number; p95: number; p99: number; most: number };
  seconds: number;
}

interface Endpoint {
  tenantId: TenantId;
  id: WebhookId;
  secret: string;
  behaviour: Behaviour;
  /** What it accepted, by event id. */
  accepted: Map<string, number>;
  firstAt: Map<string, number>;
  requests: number;
  badSignatures: number;
}

const SETTLE_MS = 120_000;

type Closer = () => unknown;

export async function runStorm(options: StormOptions, say: (line: string) => void = () => {}): Promise<StormReport> {
  const closers: Closer[] = [];
  try {
    return await storm(options, say, (close) => closers.push(close));
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

async function storm(options: StormOptions, say: (line: string) => void, defer: (close: Closer) => void): Promise<StormReport> {
  const { databaseUrl, tenants, endpointsEach, eventsEach, pace, kills } = options;
  const startedAt = performance.now();
  const folder = await mkdtemp(join(tmpdir(), "aau-storm-"));
  defer(() => rm(folder, { recursive: true, force: true }));
  const localRedis = await startRedis(folder, { persist: false });
  defer(() => localRedis.stop());
  await migrate(databaseUrl);
  const db = await openDatabase({ url: databaseUrl, driver: "pg", poolSize: 8 });
  defer(() => db.close());
  const admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
  defer(() => admin.end());

  const byPath = new Map<string, Endpoint>();
  let canaryConnections = 0;
  const canary = createServer((_, response) => response.end()).on("connection", () => {
    canaryConnections += 1;
  });
  await new Promise<void>((resolve) => canary.listen(0, "127.0.0.1", resolve));
  defer(() => canary.close());
  const receivers = createServer(async (request, response) => {
    const endpoint = byPath.get(request.url ?? "");
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (!endpoint) return void response.writeHead(404).end();
    const body = Buffer.concat(chunks).toString("utf8");
    const id = String(request.headers["webhook-id"]);
    endpoint.requests += 1;
    if (!endpoint.firstAt.has(id)) endpoint.firstAt.set(id, Date.now());
    try {
      new Webhook(endpoint.secret).verify(body, request.headers as Record<string, string>);
    } catch {
      endpoint.badSignatures += 1;
    }
    response.on("error", () => {});
    request.socket.on("error", () => {});
    endpoint.behaviour.answer?.(request, response, endpoint.requests);
    if (response.statusCode < 300) endpoint.accepted.set(id, (endpoint.accepted.get(id) ?? 0) + 1);
  });
  await new Promise<void>((resolve) => receivers.listen(0, "127.0.0.1", resolve));
  defer(() => {
    receivers.closeAllConnections();
    receivers.close();
  });
  const port = (receivers.address() as AddressInfo).port;

  const senderPort = await freePort();
  const env = {
    LOG_LEVEL: "error",
    DATABASE_URL: databaseUrl,
    REDIS_URL: localRedis.url,
    SERVICE_TOKEN: randomUUID().repeat(2),
    SECRETS_KEY: randomUUID().repeat(2),
    AAU_ALLOW_PRIVATE_WEBHOOKS: "true",
    PORT: String(senderPort),
    FUNCTION_URLS: `webhook-deliver=http://127.0.0.1:${senderPort}`,
    PATH: process.env.PATH ?? "",
  };
  const config = readConfig(env);
  const start = (): Child =>
    startChild({ name: "webhook-deliver", command: process.execPath, args: ["--import", "tsx", fileURLToPath(new URL("./sender-process.ts", import.meta.url))], env });
  let sender = start();
  defer(() => sender.stop());
  const bridge = await startBridge(config, openLog({ service: "bridge", level: "silent" }), openMetrics());
  defer(() => bridge.stop());
  const redis = connectRedis(localRedis.url, { commandTimeout: 2_000 });
  defer(() => redis.disconnect());
  const ring = openRing(redis);
  await untilReady(senderPort);

  const endpoints: Endpoint[] = [];
  const burdens = others((canary.address() as AddressInfo).port);
  for (let t = 0; t < tenants; t++) {
    const { tenantId } = await seedTenant(db, { name: `storm ${t}`, tier: "professional", subscriptions: {} });
    for (let e = 0; e < endpointsEach; e++) {
      // Two in five are a burden, beside healthy ones of the same tenant.
      const isBurden = e % 5 === 1 || e % 5 === 3;
      const behaviour = (isBurden ? burdens[(t * 2 + (e > 2 ? 1 : 0)) % burdens.length] : undefined) ?? WELL;
      const [id, secret, path] = [newId("webhook"), mintWebhookSecret(), `/${t}/${e}`];
      const endpoint: Endpoint = { tenantId, id, secret, behaviour, accepted: new Map(), firstAt: new Map(), requests: 0, badSignatures: 0 };
      const url = behaviour.elsewhere?.(port) ?? `http://127.0.0.1:${port}${path}`;
      await createWebhook(db, tenantId, "operator", {
        id,
        url,
        description: behaviour.name,
        events: ["quota.warning"],
        secret: sealWebhookSecret(keyRing(config), tenantId, id, secret),
      });
      byPath.set(path, endpoint);
      endpoints.push(endpoint);
    }
  }
  say(`${endpoints.length} endpoints of ${tenants} tenants; ${endpoints.filter(({ behaviour }) => behaviour === WELL).length} are well.`);

  // `wake`, every second instead of every fifteen.
  let isOver = false;
  const waking = (async () => {
    while (!isOver) {
      for (const id of await takeDueWebhooks(db, 500)) await ring.webhook(id, traceparentOf(null));
      await delay(1_000);
    }
  })();
  defer(async () => {
    isOver = true;
    await waking;
  });

  const tenantIds = [...new Set(endpoints.map(({ tenantId }) => tenantId))];
  const told = new Map<TenantId, Map<string, number>>(tenantIds.map((id) => [id, new Map()]));
  const total = eventsEach * tenants;
  const killAt = new Set(Array.from({ length: kills }, (_, i) => Math.floor(((i + 1) * total) / (kills + 1))));
  for (let n = 0; n < total; n++) {
    const tenantId = tenantIds[n % tenants];
    if (tenantId === undefined) continue;
    const key = `event ${n}`;
    const rings = await db.tenant(tenantId, (tx) => enqueueWebhookEvent(tx, tenantId, { type: "quota.warning", key, data: { n } }));
    told.get(tenantId)?.set(key, Date.now());
    for (const id of rings) await ring.webhook(id, traceparentOf(null));
    if (killAt.has(n)) {
      sender.process.kill("SIGKILL");
      await sender.exited;
      say(`killed the sender after ${n} events`);
      sender = start();
    }
    await delay(1_000 / pace);
  }

  const { rows } = await admin.query<{ tenant_id: string; event_key: string; event: string }>(
    "SELECT DISTINCT tenant_id, event_key, webhook_event_id(tenant_id, type, event_key) AS event FROM webhook_deliveries",
  );
  const events = new Map<TenantId, { id: string; at: number }[]>(tenantIds.map((id) => [id, []]));
  for (const { tenant_id, event_key, event } of rows) {
    const tenantId = asId("tenant", tenant_id);
    const at = told.get(tenantId)?.get(event_key);
    if (at !== undefined) events.get(tenantId)?.push({ id: publicId("event", event), at });
  }
  const healthy = endpoints.filter(({ behaviour }) => behaviour.isHealthy);
  const lost = () => healthy.reduce((sum, { tenantId, accepted }) => sum + (events.get(tenantId) ?? []).filter(({ id }) => !accepted.has(id)).length, 0);
  const until = performance.now() + SETTLE_MS;
  while (lost() > 0 && performance.now() < until) {
    // The minutes until the next attempts, and the pauses, pass at once.
    await admin.query("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending' AND tries > 0 AND next_attempt_at > now()");
    await admin.query("UPDATE webhooks SET resume_at = now() WHERE resume_at > now()");
    await delay(1_000);
  }

  const firsts = endpoints
    .filter(({ behaviour }) => behaviour === WELL)
    .flatMap(({ tenantId, firstAt }) => (events.get(tenantId) ?? []).flatMap(({ id, at }) => Math.max(0, (firstAt.get(id) ?? Number.NaN) - at)))
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const quantile = (q: number) => firsts[Math.min(firsts.length - 1, Math.floor(q * firsts.length))] ?? 0;
  return {
    deliveries: total * endpointsEach,
    endpoints: endpoints.length,
    healthy: healthy.length,
    kills,
    lost: lost(),
    badSignatures: endpoints.reduce((sum, endpoint) => sum + endpoint.badSignatures, 0),
    repeated: healthy.reduce((sum, { accepted }) => sum + [...accepted.values()].reduce((more, count) => more + count - 1, 0), 0),
    canaryConnections,
    firstAttempt: { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), most: quantile(1) },
    seconds: Math.round((performance.now() - startedAt) / 1000),
  };
}

async function untilReady(port: number): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const answer = await fetch(`http://127.0.0.1:${port}/health/readiness`).catch(() => null);
    if (answer?.ok) return;
    await delay(100);
  }
  throw new Error("webhook-deliver does not get ready");
}
