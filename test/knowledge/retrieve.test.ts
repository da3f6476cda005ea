import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { startPglite } from "../../scripts/local/postgres.ts";
import { migrate } from "../../scripts/migrate.ts";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import type { TenantId } from "../../shared/ids.ts";
import { nearestChunks, retrieveKnowledge } from "../../shared/knowledge/retrieve.ts";
import { EMBEDDING_DIMENSIONS, type Embedder, toUnitVector } from "../../shared/models/embedder.ts";
import { insertPassages, withIndexAfter } from "../support/knowledge-rows.ts";
import { freshDatabase } from "../support/postgres.ts";

const MODEL = "offline-hybrid-1";
/** A unit vector with this cosine to the question, which points along the first axis; the rest points somewhere of its own, among 64 dimensions. */
function at(similarity: number, seed: number): Float32Array {
  const elsewhere = toUnitVector(Array.from({ length: 64 }, (_, i) => (i === 0 ? 0 : Math.sin((seed + 1) * i * i * 12.9898))));
  const rest = Math.sqrt(1 - similarity ** 2);
  return elsewhere.map((x, i) => (i === 0 ? similarity : x * rest));
}
const QUESTION = at(1, 0);
const embedder = (embed: Embedder["embed"] = async () => [QUESTION]): Embedder => ({ model: MODEL, embed });
const forbidden = embedder(() => Promise.reject(new Error("nobody asked for this")));

describe.each([
  ["PostgreSQL without pgvector", false],
  ["PGlite with pgvector", true],
])("on %s", (_, withPgvector) => {
  let db: Database;
  let client: pg.Client;
  let folder: string;
  let stop = async () => {};
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "aau-retrieve-"));
    const server = withPgvector ? await startPglite(folder) : { url: await freshDatabase(inject("postgresUrl")), stop: async () => {} };
    if (withPgvector) await migrate(server.url);
    stop = server.stop;
    db = await openDatabase({ url: server.url, driver: "pg", poolSize: 2 });
    client = new pg.Client({ connectionString: server.url });
    await client.connect();
  });
  afterAll(async () => {
    await client?.end();
    await db?.close();
    await stop();
    await rm(folder, { recursive: true, force: true });
  });

  let tenants = 0;
  const newTenant = async (): Promise<TenantId> => (await seedTenant(db, { name: `retrieve-${++tenants}`, tier: "professional", subscriptions: {} })).tenantId;
  const texts = (chunks: readonly { content: string }[]) => chunks.map(({ content }) => content);

  it("a tenant with fifty passages beside one with many that are nearer gets its own nearest, all of them", async () => {
    const [small, large] = [await newTenant(), await newTenant()];
    await withIndexAfter(client, async () => {
      await insertPassages(
        client,
        small,
        MODEL,
        Array.from({ length: 50 }, (__, i) => at(0.7 - i / 100, i)),
      );
      await insertPassages(
        client,
        large,
        MODEL,
        Array.from({ length: 600 }, (__, i) => at(0.95 - i / 10_000, 100 + i)),
      );
    });
    const expected = Array.from({ length: 16 }, (__, i) => `passage ${i}`);
    // Exactly, as so small a tenant is searched; and through the index, as a large one is, where every candidate at first belongs to the other.
    for (const exactUpTo of [undefined, 10]) {
      const found = await nearestChunks(db, small, { model: MODEL, vector: QUESTION, limit: 16, minSimilarity: -1, exactUpTo });
      expect(texts(found), `exact up to ${exactUpTo}`).toEqual(expected);
      expect(found[0]?.similarity).toBeCloseTo(0.7, 3);
    }
    expect(texts(await nearestChunks(db, large, { model: MODEL, vector: QUESTION, limit: 8, minSimilarity: -1, exactUpTo: 10 }))).toEqual(expected.slice(0, 8));
    if (withPgvector) {
      await client.query("SELECT pg_stat_force_next_flush()");
      const { rows } = await client.query("SELECT idx_scan::int AS scans FROM pg_stat_user_indexes WHERE indexrelname = 'org_knowledge_chunks_near'");
      expect(rows[0].scans).toBeGreaterThan(0);
    }
  });

  it("passages below the model's cut are not given, and those of another model never", async () => {
    const tenant = await newTenant();
    await insertPassages(client, tenant, MODEL, [at(0.8, 1), at(0.05, 2), at(-0.5, 3), new Float32Array(EMBEDDING_DIMENSIONS)]);
    await insertPassages(client, tenant, "another-model", [at(0.99, 4)]);
    expect(await retrieveKnowledge({ db, embedder: embedder() }, tenant, { text: "?", vector: null })).toEqual([
      { content: "passage 0", source_url: null, heading: null, similarity: expect.closeTo(0.8, 3) },
    ]);
  });

  it("an edition that is not finished is not seen", async () => {
    const tenant = await newTenant();
    await insertPassages(client, tenant, MODEL, [at(0.8, 1)]);
    await client.query("UPDATE knowledge_documents SET edition = NULL WHERE tenant_id = $1", [tenant]);
    expect(await retrieveKnowledge({ db, embedder: embedder() }, tenant, { text: "?", vector: QUESTION })).toEqual([]);
  });

  it("at most eight passages and 2,000 tokens are given, and the same text once", async () => {
    const [many, long, copies] = [await newTenant(), await newTenant(), await newTenant()];
    await insertPassages(
      client,
      many,
      MODEL,
      Array.from({ length: 12 }, (__, i) => at(0.9 - i / 100, i)),
      { tokens: 100 },
    );
    expect(texts(await retrieveKnowledge({ db, embedder: forbidden }, many, { text: "?", vector: QUESTION }))).toEqual(Array.from({ length: 8 }, (__, i) => `passage ${i}`));
    await insertPassages(
      client,
      long,
      MODEL,
      Array.from({ length: 5 }, (__, i) => at(0.9 - i / 100, i)),
      { tokens: 600 },
    );
    await insertPassages(client, long, MODEL, [at(0.5, 9)], { tokens: 200 });
    expect(texts(await retrieveKnowledge({ db, embedder: forbidden }, long, { text: "?", vector: QUESTION }))).toEqual(
      ["passage 0", "passage 1", "passage 2", "passage 0"].slice(0, 3),
    );
    await insertPassages(client, copies, MODEL, [at(0.9, 1)]);
    await insertPassages(client, copies, MODEL, [at(0.8, 2)]);
    expect(await retrieveKnowledge({ db, embedder: forbidden }, copies, { text: "?", vector: QUESTION })).toMatchObject([
      { content: "passage 0", similarity: expect.closeTo(0.9, 3) },
    ]);
  });

  it("a tenant without passages costs no embedding", async () => {
    expect(await retrieveKnowledge({ db, embedder: forbidden }, await newTenant(), { text: "?", vector: null })).toEqual([]);
  });
});
