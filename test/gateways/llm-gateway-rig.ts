/** The real llm-gateway on real PostgreSQL and Redis, with a scripted provider behind it and a fresh tenant and task for each test. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Anthropic from "@anthropic-ai/sdk";
import { Redis } from "ioredis";
import pg from "pg";
import { inject } from "vitest";
import llmGateway from "../../functions/gateways/llm-gateway.ts";
import { startRedis } from "../../scripts/local/redis.ts";
import { type CapabilityAudience, capabilitySigner } from "../../shared/access/capability-token.ts";
import { functionApp } from "../../shared/host/app.ts";
import { readConfig } from "../../shared/host/config.ts";
import { listen } from "../../shared/host/listen.ts";
import { opener as capabilities } from "../../shared/host/resources/capabilities.ts";
import { opener as db } from "../../shared/host/resources/db.ts";
import { opener as signals } from "../../shared/host/resources/signals.ts";
import { opener as telemetry } from "../../shared/host/resources/telemetry.ts";
import { opener as upstream } from "../../shared/host/resources/upstream.ts";
import { openRuntime } from "../../shared/host/serve.ts";
import { newId } from "../../shared/ids.ts";
import { CANCEL_CHANNEL } from "../../shared/redis/streams.ts";
import { freshDatabase } from "../support/postgres.ts";
import { hold, type Script, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

const CAPABILITY_KEY = "a key that only these tests know, long enough";

export interface Servers {
  databaseUrl: string;
  redisUrl: string;
  /** A superuser's connections, for what tests look at and change behind the gateway's back. */
  admin: pg.Pool;
  stop(): Promise<void>;
}

export async function startServers(): Promise<Servers> {
  const databaseUrl = await freshDatabase(inject("postgresUrl"));
  const admin = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  admin.on("error", () => {});
  const folder = await mkdtemp(join(tmpdir(), "aau-redis-"));
  const redis = await startRedis(folder, { persist: false });
  return {
    databaseUrl,
    redisUrl: redis.url,
    admin,
    async stop() {
      await admin.end();
      await redis.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function portOf(server: Server): number {
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("not listening");
  return address.port;
}

/** A way to PostgreSQL that can be cut and mended. */
export interface Line {
  url: string;
  cut(): void;
  mend(): void;
  /** Resolves when somebody was turned away since the cut. */
  missed(): Promise<void>;
  stop(): Promise<void>;
}

export async function lineTo(databaseUrl: string): Promise<Line> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let isCut = false;
  let turnedAway = hold();
  const server = createServer((near) => {
    if (isCut) {
      turnedAway.letGo();
      return near.destroy();
    }
    const far = connect(Number(target.port), target.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(databaseUrl);
  url.port = String(portOf(server));
  const breakAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    cut() {
      isCut = true;
      turnedAway = hold();
      breakAll();
    },
    mend() {
      isCut = false;
    },
    missed: () => turnedAway.gone,
    async stop() {
      breakAll();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export interface JournalRow {
  id: string;
  state: string;
  step: string;
  call_no: number;
  node: string | null;
  model: string;
  price_version: string;
  ceiling_micro_usd: string;
  cost_micro_usd: string;
  usage: Record<string, unknown> | null;
  input_tokens: number;
  output_tokens: number;
  cache_write_tokens: number;
  cache_read_tokens: number;
  provider_request_id: string | null;
  answer: string | null;
  error: Record<string, unknown> | null;
}

export interface Task {
  tenant: string;
  id: string;
  lease: string;
}

export interface RigOptions {
  script?: Script;
  /** `null`: none, so that a local server is played. */
  apiKey?: string | null;
  /** `offline`: neither key nor address. An address: used in place of the provider's. */
  baseUrl?: "offline" | string;
  model?: string;
  databaseUrl?: string;
  redisUrl?: string;
}

export interface Rig {
  url: string;
  provider: ScriptedProvider;
  task: Task;
  token(task?: Task, claims?: { aud?: CapabilityAudience; step?: string; tokenBudget?: number }): string;
  /** The stock client, as a plugin uses it. */
  client(token?: string): Anthropic;
  post(body: unknown, options?: { headers?: Record<string, string>; path?: string; signal?: AbortSignal; token?: string }): Promise<Response>;
  /** The journal of a task, in the order of its calls. */
  journal(task?: Task): Promise<JournalRow[]>;
  newTask(options?: { maxCostMicroUsd?: number | null }): Promise<Task>;
  /** As another executor would: the old lease is void from here on. */
  takeOver(task?: Task): Promise<Task>;
  requestCancel(task?: Task): Promise<void>;
  ringCancel(task?: Task): Promise<void>;
  metrics(): Promise<string>;
  stop(): Promise<void>;
}

export async function openRig(
  servers: Servers,
  { script = () => Promise.reject(new Error("no call was expected")), apiKey = "sk-ant-scripted", baseUrl, model, databaseUrl, redisUrl }: RigOptions = {},
): Promise<Rig> {
  const { admin } = servers;
  const provider = await startScriptedProvider(script);
  const config = readConfig({
    DATABASE_URL: databaseUrl ?? servers.databaseUrl,
    REDIS_URL: redisUrl ?? servers.redisUrl,
    CAPABILITY_KEY,
    LOG_LEVEL: "silent",
    DRAIN_MS: "0",
    ...(baseUrl === "offline" ? {} : { ANTHROPIC_BASE_URL: baseUrl ?? provider.url, ...(apiKey === null ? {} : { ANTHROPIC_API_KEY: apiKey }) }),
    ...(model === undefined ? {} : { ANTHROPIC_MODEL: model }),
  });
  const embedder = {
    variables: [],
    open: () => ({ model: "scripted-embedding", embed: async (texts: readonly string[]) => texts.map((text) => Float32Array.of(text.length, 1)) }),
  };
  const { runtime, stop } = await openRuntime([llmGateway], { capabilities, db, signals, telemetry, upstream, embedder }, config, "llm-gateway");
  const listening = await listen(functionApp([llmGateway], runtime).fetch, { port: 0, host: "127.0.0.1" });
  const url = `http://127.0.0.1:${listening.port}`;
  const signer = capabilitySigner(CAPABILITY_KEY);

  async function newTask({ maxCostMicroUsd = null }: { maxCostMicroUsd?: number | null } = {}): Promise<Task> {
    const task = { tenant: newId("tenant"), id: newId("task"), lease: randomUUID() };
    await admin.query("INSERT INTO tenants (id, name, plan_tier) VALUES ($1, 'a tenant', 'professional')", [task.tenant]);
    await admin.query(
      `INSERT INTO tasks (id, tenant_id, environment, plugin_name, plan, status, routing_method, max_cost_micro_usd, attempt, lease_token, lease_until, deadline, request_id)
       VALUES ($1, $2, 'live', 'code-review', '[]', 'running', 'explicit', $3, 1, $4, now() + interval '1 hour', now() + interval '1 hour', 'req_test')`,
      [task.id, task.tenant, maxCostMicroUsd, task.lease],
    );
    return task;
  }
  const first = await newTask();

  const token: Rig["token"] = (task = first, { aud = "llm", step = "s1", tokenBudget = 50_000 } = {}) =>
    signer.mint({
      aud,
      tenant: task.tenant,
      task: task.id,
      attempt: 1,
      step,
      plugin: "code-review",
      version: "1.0.0",
      scopes: [],
      token_budget: tokenBudget,
      lease: task.lease,
      exp: Date.now() + 3_600_000,
    });

  return {
    url,
    provider,
    task: first,
    token,
    client: (key = token()) => new Anthropic({ baseURL: `${url}/internal/llm`, apiKey: key, authToken: null, maxRetries: 0, timeout: 30_000, logLevel: "off" }),
    post: (body, { headers = {}, path = "/internal/llm/v1/messages", signal, token: key = token() } = {}) =>
      fetch(`${url}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": key, ...headers },
        body: typeof body === "string" ? body : JSON.stringify(body),
        signal: signal ?? null,
      }),
    journal: async (task = first) => (await admin.query<JournalRow>("SELECT * FROM llm_calls WHERE task_id = $1 ORDER BY step, call_no", [task.id])).rows,
    newTask,
    async takeOver(task = first) {
      const lease = randomUUID();
      await admin.query("UPDATE tasks SET lease_token = $2, attempt = attempt + 1 WHERE id = $1", [task.id, lease]);
      await admin.query("UPDATE llm_calls SET state = 'unknown' WHERE task_id = $1 AND state = 'started'", [task.id]);
      return { ...task, lease };
    },
    requestCancel: async (task = first) => void (await admin.query("UPDATE tasks SET cancel_requested_at = now() WHERE id = $1", [task.id])),
    async ringCancel(task = first) {
      const redis = new Redis(servers.redisUrl);
      await redis.publish(CANCEL_CHANNEL, task.id);
      redis.disconnect();
    },
    metrics: () => runtime.metrics.registry.metrics(),
    async stop() {
      await stop([listening]);
      await provider.stop();
    },
  };
}

/** A request that any call can be made of. */
export const ASK = { model: "claude-sonnet-4-6", max_tokens: 1000, messages: [{ role: "user" as const, content: "Say something." }] };
