/**
 * (context) What it costs to tell a plugin all there is: a conversation of 20 turns, the nearest of 1,000 chunks, a configuration and two secrets.
 * First whole tasks beside bare ones, then the assembly alone, in this process and warm. The embedded
 * PostgreSQL has no pgvector, and searches exactly, by SQL; BENCH_DATABASE_URL may name an empty database on a server that has it.
 */
import { Redis } from "ioredis";
import { openKeyRing } from "../../shared/access/key-ring.ts";
import { openTenantSecrets } from "../../shared/access/tenant-secrets.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { type ContextReader, loadTaskContext, stepContext } from "../../shared/execution/assemble-context.ts";
import type { Claim } from "../../shared/execution/claim-task.ts";
import { asId } from "../../shared/ids.ts";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import { append } from "../conversations/exchange.ts";
import { readCatalogue, readCommands } from "../corpus/corpus.ts";
import { insertPassages } from "../support/knowledge-rows.ts";
import { compare, ROUNDS, startChain, TASKS } from "./added-cost.ts";
import { millis, quantile, whole } from "./figures.ts";
import noop from "./functions/plugins/bench-noop/bench-noop.ts";
import told from "./functions/plugins/bench-told/bench-told.ts";
import type { Part } from "./part.ts";
import type { BenchTenant, Stage } from "./stage.ts";

const CHUNKS = 1_000;
const TURNS = 20;
const CONVERSATION = "bench";
const TENANTS = 4;
const ASSEMBLIES = Number(process.env.AAU_BENCH_ASSEMBLIES ?? 200);
const WARM_UP = 10;
/** Issue 3: assembly, warm. */
const ALLOWED_MS = 50;
const COMMAND = "Look into the complaint of the customer about the late delivery";

/** What the tenants have: passages near to everyday commands, a conversation, a configuration, two secrets. */
async function furnish(stage: Stage, db: Database, tenants: readonly BenchTenant[], reader: ContextReader): Promise<void> {
  const embedder = reader.embedder;
  const commands = (await readCommands()).map(({ text }) => text);
  const sentences = [...commands, ...(await readCatalogue()).flatMap(({ capabilities }) => capabilities)];
  const vectors = await embedder.embed(Array.from({ length: CHUNKS }, (_, n) => `${sentences[n % sentences.length]} ${n}`));
  const client = await stage.db.connect();
  try {
    for (const { tenantId } of tenants) {
      const owner = asId("tenant", tenantId);
      await insertPassages(client, tenantId, embedder.model, vectors, { tokens: 200 });
      const { rows } = await client.query("SELECT id FROM users WHERE tenant_id = $1", [tenantId]);
      const userId: string = rows[0].id;
      for (let turn = 0; turn < TURNS / 2; turn++)
        await append(db, { tenantId: owner, userId, name: CONVERSATION, command: `Question ${turn}? ${COMMAND}.`, result: `Answer ${turn}.` });
      for (const name of ["first", "second"]) await reader.secrets.put(db, owner, "operator", told.name, name, `${name}-value`);
      await client.query("INSERT INTO tenant_plugin_config (tenant_id, plugin_id, config) SELECT $1, id, $2 FROM plugins WHERE name = $3 ON CONFLICT DO NOTHING", [
        tenantId,
        { tone: "short", team: "support" },
        told.name,
      ]);
    }
  } finally {
    client.release();
  }
}

/** The tenant's last task as its executor would hold it, if it ran still. */
async function heldClaim(stage: Stage, tenant: BenchTenant, reader: ContextReader): Promise<Claim> {
  const { rows } = await stage.db.query(
    `UPDATE tasks SET status = 'running', lease_token = gen_random_uuid(), lease_until = now() + interval '1 hour'
     WHERE id = (SELECT max(id::text)::uuid FROM tasks WHERE tenant_id = $1 AND plugin_name = $2) RETURNING id, user_id, lease_token`,
    [tenant.tenantId, told.name],
  );
  if (!rows[0]) throw new Error("the tenant has no task");
  const [vector] = await reader.embedder.embed([COMMAND]);
  const step = { id: "main", plugin: told.name, version: "1.0.0", needs: [], manifest: told.manifest, endpoint: "", ending: null, config: { tone: "short" } };
  return {
    taskId: asId("task", rows[0].id),
    tenantId: asId("tenant", tenant.tenantId),
    isOffline: false,
    userId: rows[0].user_id,
    leaseToken: rows[0].lease_token,
    attempt: 1,
    handBacks: 0,
    deadlineAtMs: performance.now() + 3_600_000,
    steps: [step],
    finished: [],
    due: null,
    profile: {},
    command: COMMAND,
    attachments: [],
    conversationId: CONVERSATION,
    context: null,
    commandVector: vector ? { values: vector, model: reader.embedder.model } : null,
    priority: "normal",
    routingMethod: "explicit",
    requestId: "req_bench",
    traceparent: null,
    createdAt: new Date().toISOString(),
  };
}

/** Sorted milliseconds, and what was wrong with the first that was not whole. */
async function assemblies(reader: ContextReader, claim: Claim): Promise<{ times: number[]; wrong: string[] }> {
  const times: number[] = [];
  const [step] = claim.steps;
  const wantsKnowledge = step.manifest.required_scopes.includes("knowledge:read");
  for (let i = 0; i < WARM_UP + ASSEMBLIES; i++) {
    const startedAt = performance.now();
    const read = await loadTaskContext(reader, claim);
    const { conversation_history: turns = [], org_knowledge_chunks: passages = [], secrets = {} } = await stepContext(reader, claim, step, read);
    if (i >= WARM_UP) times.push(performance.now() - startedAt);
    // A summary may stand before the turns.
    const isWhole = turns.length >= TURNS && passages.length > 0 === wantsKnowledge && Object.keys(secrets).length === 2;
    if (!isWhole) return { times, wrong: [`an assembly had ${turns.length} turns, ${passages.length} passages, ${Object.keys(secrets).length} secrets`] };
  }
  return { times: times.sort((a, b) => a - b), wrong: [] };
}

function withoutKnowledge(claim: Claim): Claim {
  const [step] = claim.steps;
  const required_scopes = step.manifest.required_scopes.filter((scope) => scope !== "knowledge:read");
  return { ...claim, steps: [{ ...step, manifest: { ...step.manifest, required_scopes } }] };
}

export const context: Part = {
  letter: "context",
  title: `context of ${TURNS} turns, ${whole(CHUNKS)} chunks, configuration and 2 secrets: ${whole(TASKS)} tasks beside bare ones, ${ROUNDS} rounds each in turn; ${ASSEMBLIES} assemblies`,

  async run(stage, print) {
    const chain = await startChain(stage, [noop.name, told.name]);
    const db = await openDatabase({ url: stage.env.DATABASE_URL ?? "", driver: "pg", poolSize: 4 });
    const redis = new Redis(stage.env.REDIS_URL ?? "");
    const lost: string[] = [];
    try {
      await stage.clear();
      for (const plugin of [noop, told]) await stage.register(plugin, chain.urls.get(plugin.name) ?? "");
      const tenants = stage.tenants.slice(0, TENANTS);
      const secrets = openTenantSecrets(openKeyRing({ id: "k1", key: stage.env.SECRETS_KEY ?? "" }, []));
      const reader: ContextReader = {
        db,
        redis,
        embedder: offlineEmbedder(),
        secrets,
        telemetry: { degraded: (part, error) => lost.push(`${part}: ${error}`), stepFinished: () => {} },
      };
      await furnish(stage, db, tenants, reader);
      lost.push(
        ...(await compare(stage, print, chain.submit, tenants, [
          { name: "bare", body: () => ({ command: COMMAND, plugin: noop.name }) },
          { name: "told", body: () => ({ command: COMMAND, plugin: told.name, conversation_id: CONVERSATION }) },
        ])),
      );
      const [tenant] = tenants;
      if (!tenant) throw new Error("the stage has no tenant");
      const held = await heldClaim(stage, tenant, reader);
      for (const [name, claim] of [
        ["all of it", held],
        ["all but the knowledge", withoutKnowledge(held)],
      ] as const) {
        const { times, wrong } = await assemblies(reader, claim);
        print(`  the assembly alone, warm, ${name}: p50 ${millis(quantile(times, 0.5))}, p99 ${millis(quantile(times, 0.99))}; target: p99 under ${ALLOWED_MS} ms`);
        lost.push(...wrong);
      }
    } finally {
      redis.disconnect();
      await db.close();
      await chain.stop();
    }
    return lost;
  },
};
