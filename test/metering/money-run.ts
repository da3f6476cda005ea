/**
 * Tasks as they come in a month, through the platform's own admission, journal and settlement, with a provider that is a list of usage objects.
 * What they must cost is worked out beside, from those objects alone: its prices and its arithmetic are its own. One file, since the script of a task
 * and what it must cost are one thing.
 */
import { randomUUID } from "node:crypto";
import * as v from "valibot";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import type { Caller, PlanTier } from "../../shared/access/caller.ts";
import type { Capability } from "../../shared/access/capability-token.ts";
import type { Database } from "../../shared/db/database.ts";
import { claimRow } from "../../shared/execution/claim-batch.ts";
import { settleRow } from "../../shared/execution/settle-batch.ts";
import { newId, type TaskId, type TenantId } from "../../shared/ids.ts";
import { openCall } from "../../shared/metering/llm-journal.ts";
import { PRICE_VERSION } from "../../shared/metering/prices.ts";
import { Settlement } from "../../shared/metering/settlement.ts";
import { Message } from "../../shared/models/message-stream.ts";
import { admitTask } from "../../shared/tasks/admit-task.ts";
import { cancelTask } from "../../shared/tasks/read-tasks.ts";
import { openTelemetry } from "../../shared/telemetry/domain-events.ts";
import { openLog } from "../../shared/telemetry/log.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";

/** Micro-USD per million tokens: input, output, written for 5 minutes, for an hour, read. Written down here once more, on purpose. */
const PRICES: Record<string, readonly [bigint, bigint, bigint, bigint, bigint]> = {
  "claude-sonnet-5-5": [2_000_000n, 10_000_000n, 2_500_000n, 4_000_000n, 100_000n],
  "claude-haiku-4-5": [1_000_000n, 5_000_000n, 1_250_000n, 2_000_000n, 100_000n],
  "claude-opus-4-1": [15_000_000n, 75_000_000n, 18_750_000n, 30_000_000n, 1_500_000n],
};
const MODELS = Object.keys(PRICES);

interface RawUsage {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens: number;
  cache_read_input_tokens: number;
  cache_creation: { ephemeral_5m_input_tokens: number; ephemeral_1h_input_tokens: number };
}

function priceOf(model: string, usage: RawUsage): bigint {
  const [input, output, write5m, write1h, read] = PRICES[model] ?? [0n, 0n, 0n, 0n, 0n];
  const kept1h = BigInt(usage.cache_creation.ephemeral_1h_input_tokens);
  const millionths =
    BigInt(usage.input_tokens) * input +
    BigInt(usage.output_tokens) * output +
    (BigInt(usage.cache_creation_input_tokens) - kept1h) * write5m +
    kept1h * write1h +
    BigInt(usage.cache_read_input_tokens) * read;
  return millionths / 1_000_000n + (millionths % 1_000_000n === 0n ? 0n : 1n);
}

/** What the month of one tenant must come to. */
export interface Expected {
  tenantId: TenantId;
  tier: PlanTier;
  /** By plugin: the quota, and what was billable. */
  plugins: Map<string, { quota: number | null; overage: boolean; billable: number }>;
  modelUsage: bigint;
  unbilled: bigint;
  unknownCalls: number;
  refused: number;
  kinds: Map<string, number>;
}

/** A generator of the same numbers for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export const PLUGINS = ["money-a", "money-b", "money-c", "money-d"] as const;
const KINDS = [
  ["success", 40],
  ["partial", 10],
  ["failed", 10],
  ["policy", 4],
  ["retried", 10],
  ["unknown", 4],
  ["call_failed", 4],
  ["cancelled_queued", 4],
  ["cancelled_running", 5],
  ["killed", 4],
  ["fallback", 5],
] as const;
type Kind = (typeof KINDS)[number][0];

const TENANTS: readonly { tier: PlanTier; quota: number | null; overage: boolean; plugins: number }[] = [
  { tier: "starter", quota: 60, overage: false, plugins: 1 },
  { tier: "professional", quota: 40, overage: true, plugins: 3 },
  { tier: "professional", quota: null, overage: false, plugins: 2 },
  { tier: "professional", quota: 5, overage: true, plugins: 4 },
  { tier: "enterprise", quota: null, overage: false, plugins: 4 },
];

/** Plugins in the catalogue and tenants with subscriptions. */
export async function seedMoney(db: Database): Promise<Expected[]> {
  for (const name of PLUGINS) {
    const id = newId("plugin");
    await db.call("INSERT INTO plugins (id, name, category) VALUES ($1, $2, 'testing')", [id, name]);
    await db.call(
      `INSERT INTO plugin_versions (id, plugin_id, version, version_sort, manifest, endpoint) VALUES ($1, $2, '1.0.0', '{1,0,0,1}', '{"name": "x"}', 'http://127.0.0.1:9')`,
      [newId("version"), id],
    );
  }
  return Promise.all(
    TENANTS.map(async ({ tier, quota, overage, plugins }, n) => {
      const names = PLUGINS.slice(0, plugins);
      const { tenantId } = await seedTenant(db, { name: `money-${n}-${randomUUID().slice(0, 8)}`, tier, subscriptions: Object.fromEntries(names.map((name) => [name, quota])) });
      await db.call("UPDATE subscriptions SET overage_enabled = $2 WHERE tenant_id = $1", [tenantId, overage]);
      return {
        tenantId,
        tier,
        plugins: new Map(names.map((name) => [name, { quota, overage, billable: 0 }])),
        modelUsage: 0n,
        unbilled: 0n,
        unknownCalls: 0,
        refused: 0,
        kinds: new Map(),
      };
    }),
  );
}

const telemetry = openTelemetry(openLog({ service: "money", level: "silent" }), openMetrics());
const LEASE_MS = 60_000;
const Claimed = v.object({ outcome: v.string(), lease_token: v.nullable(v.string()), task: v.object({ attempt: v.optional(v.number()) }) });

/** Runs this many tasks, 16 at a time, and adds to what is expected of their tenants. */
export async function runMoney(db: Database, tenants: readonly Expected[], tasks: number, seed: number): Promise<void> {
  const random = randomOf(seed);
  const scripts = Array.from({ length: tasks }, () => scriptOf(random, tenants));
  let next = 0;
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (;;) {
        const script = scripts[next++];
        if (!script) return;
        await play(db, script);
      }
    }),
  );
}

interface PaidCall {
  model: string;
  usage: RawUsage;
}

interface Script {
  tenant: Expected;
  kind: Kind;
  isTest: boolean;
  /** `standIn`: the calls of a fallback that takes the step over when its plugin has made its own. */
  steps: { id: string; plugin: string; calls: PaidCall[]; standIn: PaidCall[]; fails: boolean }[];
}

function scriptOf(random: () => number, tenants: readonly Expected[]): Script {
  const below = (n: number) => Math.floor(random() * n);
  const pick = <T>(list: readonly T[]): T => {
    const one = list[below(list.length)];
    if (one === undefined) throw new Error("an empty list");
    return one;
  };
  const usage = (): RawUsage => {
    const written = below(3) === 0 ? below(50_000) : 0;
    const kept = below(2) === 0 ? below(written + 1) : 0;
    return {
      input_tokens: below(20_000),
      output_tokens: below(4_000),
      cache_creation_input_tokens: written,
      cache_read_input_tokens: below(3) === 0 ? below(80_000) : 0,
      cache_creation: { ephemeral_5m_input_tokens: written - kept, ephemeral_1h_input_tokens: kept },
    };
  };
  const calls = (): PaidCall[] => Array.from({ length: below(4) }, () => ({ model: pick(MODELS), usage: usage() }));
  const tenant = pick(tenants);
  const kind = pick(KINDS.flatMap(([name, weight]) => Array<Kind>(weight).fill(name)));
  const mayChain = tenant.tier !== "starter" && (kind === "success" || kind === "partial" || kind === "failed" || kind === "retried");
  const count = mayChain && below(5) === 0 ? 2 + below(2) : 1;
  // A tenth of the tasks are for a plugin that is only tried.
  const names = below(10) === 0 ? PLUGINS : [...tenant.plugins.keys()];
  return {
    tenant,
    kind,
    isTest: below(10) === 0,
    steps: Array.from({ length: count }, (_, n) => ({
      id: `s${n}`,
      plugin: pick(names),
      calls: calls(),
      standIn: kind === "fallback" || kind === "killed" ? calls() : [],
      fails: kind === "failed" || (kind === "partial" && count > 1 && n === count - 1),
    })),
  };
}

async function play(db: Database, { tenant, kind, isTest, steps }: Script): Promise<void> {
  const caller: Caller = {
    keyId: newId("key"),
    tenantId: tenant.tenantId,
    userId: null,
    environment: isTest ? "test" : "live",
    scopes: [],
    tier: tenant.tier,
    limits: { perTenant: 1, perPlugin: 1 },
  };
  const id = newId("task");
  const admitted = await admitTask(db, caller, {
    id,
    submission: { command: "count", attachments: [], priority: "normal", deadline: undefined, max_cost_usd: undefined } as never,
    plugin: steps[0]?.plugin ?? "",
    plan: steps.map(({ id, plugin }) => ({ id, plugin, version: "1.0.0", needs: [] })),
    method: "explicit",
    confidence: 1,
    embedding: null,
    traceparent: "00-0-0-00",
    requestId: "req_money",
    idempotency: null,
  });
  tenant.kinds.set(kind, (tenant.kinds.get(kind) ?? 0) + 1);
  if (admitted.outcome !== "admitted") {
    tenant.refused += 1;
    return;
  }
  if (kind === "cancelled_queued") return void (await cancelTask(db, tenant.tenantId, id));

  const spent = new Map<string, bigint>();
  const spender = (step: { id: string; plugin: string }) => `${step.id} ${step.plugin}`;
  const call = async (lease: string, attempt: number, n: number, step: Script["steps"][number], how: "done" | "failed" | "left", isPaid = true) => {
    const one = step.calls[n];
    if (!one) return;
    const capability = capabilityOf(tenant.tenantId, id, lease, attempt, step);
    const callId = newId("call");
    const opened = await openCall(db, capability, {
      id: callId,
      node: null,
      sha256: Buffer.from(`${step.plugin} ${n}`).toString("hex").padStart(64, "0"),
      occurrence: 1,
      model: one.model,
      priceVersion: PRICE_VERSION,
      ceilingMicroUsd: 1_000_000n,
    });
    if (opened.outcome === "replay") return;
    if (opened.outcome !== "proceed") throw new Error(`the journal said ${opened.outcome}`);
    if (how === "left") {
      tenant.unknownCalls += 1;
      return;
    }
    const settlement = new Settlement({
      db,
      telemetry,
      capability,
      id: callId,
      node: null,
      model: one.model,
      charges: true,
      traceparent: "00-0-0-00",
      requestBytes: 1_000,
      usedBefore: 0,
      signal: new AbortController().signal,
      release() {},
    });
    const message = v.parse(Message, {
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: one.model,
      content: [],
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: one.usage,
    });
    if (how === "failed") await settlement.failed(null, { type: "overloaded_error" });
    else await settlement.done(message, one.usage, "{}", 2);
    if (how === "done" && isPaid) spent.set(spender(step), (spent.get(spender(step)) ?? 0n) + priceOf(one.model, one.usage));
  };

  let { lease, attempt } = await claim(db, id);
  if (kind === "retried" || kind === "unknown") {
    // An executor that dies after its first call, or in it; the next one finds what is paid.
    for (const step of steps) await call(lease, attempt, 0, step, kind === "retried" ? "done" : "left");
    await expire(db, id);
    ({ lease, attempt } = await claim(db, id));
  }
  if (kind === "call_failed") for (const step of steps) await call(lease, attempt, 0, step, "failed");
  for (const step of steps) for (const n of step.calls.keys()) await call(lease, attempt, n, step, "done");

  const answeredBy = kind === "fallback" || kind === "killed" ? await fallbackOf(db, tenant, id, lease, steps) : null;
  const ran = answeredBy ? steps.map((step) => ({ ...step, plugin: answeredBy, calls: step.standIn })) : steps;
  if (answeredBy) for (const step of ran) for (const n of step.calls.keys()) await call(lease, attempt, n, step, "done");

  if (kind === "killed") {
    await db.call("UPDATE tasks SET deadline = now() - interval '1 second' WHERE id = $1", [id]);
    await expire(db, id);
    await claimRow(db, { id, leaseMs: LEASE_MS, maxCrashes: 3 });
  } else if (kind === "cancelled_running") {
    await cancelTask(db, tenant.tenantId, id);
    await settle(db, tenant.tenantId, id, lease, "cancelled", steps, attempt, () => "cancelled");
  } else if (kind === "policy") {
    await settle(db, tenant.tenantId, id, lease, "failed", steps, attempt, () => "failed");
  } else {
    const ends = (step: Script["steps"][number]) => (step.fails ? "failed" : kind === "partial" ? "partial" : "success");
    const isDone = steps.some((step) => !step.fails);
    await settle(db, tenant.tenantId, id, lease, !isDone ? "failed" : kind === "partial" || steps.some((step) => step.fails) ? "partial" : "success", ran, attempt, ends);
    for (const step of ran) {
      const plugin = tenant.plugins.get(step.plugin);
      if (step.fails || !isDone || isTest || !plugin) continue;
      plugin.billable += 1;
      tenant.modelUsage += spent.get(spender(step)) ?? 0n;
      spent.delete(spender(step));
    }
  }
  for (const cost of spent.values()) tenant.unbilled += cost;
}

/** Another plugin of the tenant's, which has room for it; null: none has. */
async function fallbackOf(db: Database, tenant: Expected, id: TaskId, lease: string, steps: Script["steps"]): Promise<string | null> {
  const other = [...tenant.plugins.keys()].find((name) => name !== steps[0]?.plugin);
  if (!other) return null;
  const rows = await db.call("SELECT plugin FROM lock_fallback($1, $2, $3, $4, $5)", [tenant.tenantId, id, lease, steps[0]?.id, other]);
  return rows.length > 0 ? other : null;
}

function capabilityOf(tenantId: TenantId, task: TaskId, lease: string, attempt: number, { id, plugin }: { id: string; plugin: string }): Capability {
  return { v: 1, aud: "llm", tenant: tenantId, task, attempt, step: id, plugin, version: "1.0.0", scopes: [], token_budget: 1_000_000, lease, exp: Date.now() + LEASE_MS };
}

async function claim(db: Database, id: TaskId): Promise<{ lease: string; attempt: number }> {
  const row = v.parse(Claimed, await claimRow(db, { id, leaseMs: LEASE_MS, maxCrashes: 3 }));
  if (row.lease_token === null) throw new Error(`the claim said ${row.outcome}`);
  return { lease: row.lease_token, attempt: row.task.attempt ?? 1 };
}

const expire = (db: Database, id: TaskId) => db.call("UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = $1", [id]);

async function settle<S extends { id: string; plugin: string }>(
  db: Database,
  tenant: TenantId,
  id: TaskId,
  lease: string,
  status: string,
  steps: readonly S[],
  attempt: number,
  endOf: (step: S) => string,
): Promise<void> {
  const rows = steps.map((step) => ({
    step: step.id,
    plugin_name: step.plugin,
    plugin_version: "1.0.0",
    attempt,
    status: endOf(step),
    output: {},
    error: null,
    confidence: null,
    latency_ms: 1,
  }));
  const answer = await settleRow(db, { tenant, id, lease, in_conversation: false, status, result: "null", error: "null", steps: JSON.stringify(rows), events: "[]" });
  if (!answer.settled) throw new Error("the lease was lost");
}

/** What the invoice of the month that has just begun to be counted must come to. */
export function expectedTotal({ tier, plugins, modelUsage }: Expected, daysLeft: number, daysInMonth: number): bigint {
  const [days, month] = [BigInt(daysLeft), BigInt(daysInMonth)];
  const names = [...plugins.values()];
  const overage = names.reduce((sum, { quota, overage: isOn, billable }) => sum + (isOn && quota !== null ? BigInt(Math.max(0, billable - quota)) : 0n), 0n);
  if (tier === "starter") return BigInt(names.length) * ((19_000_000n * days) / month) + modelUsage;
  if (tier === "professional") {
    const fees = BigInt(names.length) * ((49_000_000n * days) / month);
    const percent = [0n, 0n, 10n, 15n, 20n, 25n][names.length] ?? 25n;
    const whole = 49_000_000n * BigInt(names.length) * days * percent;
    const discount = (whole + 100n * month - 1n) / (100n * month);
    return fees - discount + overage * 20_000n + modelUsage;
  }
  const executions = BigInt(names.reduce((sum, { billable }) => sum + billable, 0));
  const small = (a: bigint, b: bigint) => (a < b ? a : b);
  const positive = (a: bigint) => (a > 0n ? a : 0n);
  const volume = small(executions, 10_000n) * 15_000n + positive(small(executions, 100_000n) - 10_000n) * 10_000n + positive(executions - 100_000n) * 6_000n;
  return (1_500_000_000n * days) / month + volume + modelUsage;
}
