/**
 * Retrieval of one tenant's chunks beside others': time and recall@8 against exact search. On PGlite, the embedded server that has pgvector; its
 * WebAssembly is several times slower than a real server, so BENCH_PGVECTOR_URL may name an empty database on one. BENCH_CHUNKS is the largest tenant:
 * 100,000 chunks take a real server minutes, and PGlite, which stops at 10,000 unless told, the better part of an hour.
 */
import { join } from "node:path";
import pg from "pg";
import { startPglite } from "../../scripts/local/postgres.ts";
import { migrate } from "../../scripts/migrate.ts";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import type { TenantId } from "../../shared/ids.ts";
import { nearestChunks } from "../../shared/knowledge/retrieve.ts";
import { toUnitVector } from "../../shared/models/embedder.ts";
import { insertPassages, withIndexAfter } from "../support/knowledge-rows.ts";
import { millis, quantile, table, whole } from "./figures.ts";
import type { Part } from "./part.ts";

/** Chunks of the tenants that are measured; all stand in one table, beside twenty tenants more of fifty each. */
const SIZES = [50, 1_000, 10_000, 100_000];
const NEIGHBOURS = 20;
const QUERIES = 200;
const EXACT_QUERIES = 40;
const TOP = 8;
/** As retrieveKnowledge asks: twice what it gives. */
const LIMIT = 2 * TOP;
const MODEL = "bench";
const TOPICS = 400;
const TOPICS_A_TENANT = 100;
/** Numbers that are not zero, of 1536: they make an index as hard to build and search, and text that is faster to send. */
const FILLED = 256;
const BATCH = 500;

/** A generator with a seed, so that every run has the same vectors. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const random = numbers(7);
const topics = Array.from({ length: TOPICS }, () => Array.from({ length: FILLED }, () => random() - 0.5));

/** A point near one of the topics: cosines of 0.5 to 0.7 within a topic, about 0 between two. */
function near(topic: number): Float32Array {
  const centre = topics[topic] ?? [];
  return toUnitVector(centre.map((x) => x + 0.9 * (random() - 0.5))).map((x) => Math.round(x * 10_000) / 10_000);
}

interface Filled {
  tenantId: TenantId;
  size: number;
  topics: number[];
}

async function fill(db: Database, client: pg.Client, size: number, name: string): Promise<Filled> {
  const { tenantId } = await seedTenant(db, { name, tier: "enterprise", subscriptions: {} });
  const own = Array.from({ length: TOPICS_A_TENANT }, () => Math.floor(random() * TOPICS));
  for (let from = 0; from < size; from += BATCH) {
    const vectors = Array.from({ length: Math.min(BATCH, size - from) }, () => near(own[Math.floor(random() * own.length)] ?? 0));
    await insertPassages(client, tenantId, MODEL, vectors);
  }
  return { tenantId, size, topics: own };
}

async function measure(db: Database, { tenantId, size, topics: own }: Filled) {
  const ask = async (vector: Float32Array, exactUpTo?: number) => {
    const startedAt = performance.now();
    const hits = await nearestChunks(db, tenantId, { model: MODEL, vector, limit: LIMIT, minSimilarity: -1, exactUpTo });
    return { ms: performance.now() - startedAt, found: hits.slice(0, TOP).map(({ document_id, content }) => `${document_id} ${content}`) };
  };
  const queries = Array.from({ length: QUERIES }, () => near(own[Math.floor(random() * own.length)] ?? 0));
  for (const query of queries.slice(0, 5)) await ask(query);
  const times: number[] = [];
  const exactTimes: number[] = [];
  let agreed = 0;
  for (const [i, query] of queries.entries()) {
    const { ms, found } = await ask(query);
    times.push(ms);
    if (i >= EXACT_QUERIES) continue;
    const exact = await ask(query, 2_000_000_000);
    exactTimes.push(exact.ms);
    agreed += exact.found.filter((one) => found.includes(one)).length;
  }
  const sorted = times.sort((a, b) => a - b);
  const exactSorted = exactTimes.sort((a, b) => a - b);
  return {
    row: [whole(size), millis(quantile(sorted, 0.5)), millis(quantile(sorted, 0.99)), millis(quantile(exactSorted, 0.5)), (agreed / (EXACT_QUERIES * TOP)).toFixed(3)],
    recall: agreed / (EXACT_QUERIES * TOP),
  };
}

export const retrieval: Part = {
  letter: "retrieval",
  title: `the ${LIMIT} nearest chunks of one tenant beside others, ${QUERIES} questions each, recall@${TOP} against exact search on ${EXACT_QUERIES} of them`,

  async run(stage, print) {
    const own = process.env.BENCH_PGVECTOR_URL;
    const server = own ? { url: own, stop: async () => {} } : await startPglite(join(stage.folder, "pglite"));
    const lost: string[] = [];
    try {
      await migrate(server.url);
      const db = await openDatabase({ url: server.url, driver: "pg", poolSize: 1 });
      const client = new pg.Client({ connectionString: server.url });
      await client.connect();
      try {
        const { rows } = await client.query("SELECT version() AS server, (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector");
        print(`  ${rows[0].server.split(" on ")[0]}, pgvector ${rows[0].pgvector}`);
        await client.query("SET maintenance_work_mem = '1GB'");
        const sizes = SIZES.filter((size) => size <= Number(process.env.BENCH_CHUNKS ?? (own ? 100_000 : 10_000)));
        const tenants: Filled[] = [];
        const filling = performance.now();
        let building = filling;
        await withIndexAfter(client, async () => {
          for (const size of sizes) tenants.push(await fill(db, client, size, `retrieval-${size}`));
          for (let i = 0; i < NEIGHBOURS; i++) await fill(db, client, 50, `neighbour-${i}`);
          building = performance.now();
        });
        print(`  filled in ${whole((building - filling) / 1000)} s, indexed in ${whole((performance.now() - building) / 1000)} s`);
        const figures: string[][] = [];
        for (const tenant of tenants) {
          const { row, recall } = await measure(db, tenant);
          figures.push(row);
          if (recall < 0.9) lost.push(`recall@${TOP} of ${recall.toFixed(3)} with ${tenant.size} chunks`);
        }
        print(table(["chunks", "p50", "p99", "exact p50", `recall@${TOP}`], figures));
      } finally {
        await client.end();
        await db.close();
      }
    } finally {
      await server.stop();
    }
    return lost;
  },
};
