/** What is left of a document when its embedding runs twice, at once with itself, half-way, or not at all. */
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asId, type DocumentId, parseId } from "../../shared/ids.ts";
import { takeDueDocuments } from "../../shared/knowledge/due-documents.ts";
import { embedDocument } from "../../shared/knowledge/embed-document.ts";
import type { Embedder } from "../../shared/models/embedder.ts";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import { openTelemetry } from "../../shared/telemetry/domain-events.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ withBridge: false });
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

const offline = offlineEmbedder();
const telemetry = openTelemetry(() => {}, openMetrics());
const never = new AbortController().signal;
const embed = (id: DocumentId, embedder: Embedder = offline, stopping = never) => embedDocument({ db: platform.db, platformDb: platform.db, embedder, telemetry }, id, stopping);

/** A document of some forty passages, which is more than one batch. */
async function newDocument(passages = 40): Promise<DocumentId> {
  const content = Array.from({ length: passages }, (_, i) => `# Part ${i}\n\nThis is passage ${i} of ${crypto.randomUUID()}.`).join("\n\n");
  const { body } = await tenant.api("POST", "/v1/knowledge", { content });
  return asId("document", parseId("document", body.document_id) ?? "");
}

async function stateOf(id: DocumentId) {
  return platform.db.platform(async (tx) => {
    const { rows } = await sql<{ status: string; attempts: number; error: string | null; chunk_count: number; model: string | null; waits_ms: number }>`
      SELECT status, attempts, error, chunk_count, embedding_model AS model, extract(epoch FROM next_attempt_at - now())::float8 * 1000 AS waits_ms FROM knowledge_documents WHERE id = ${id}`.execute(
      tx,
    );
    const chunks = await sql<{ position: number; seen: boolean }>`SELECT c.position, d.edition IS NOT DISTINCT FROM c.edition AS seen
      FROM org_knowledge_chunks c LEFT JOIN knowledge_documents d ON d.id = c.document_id WHERE c.document_id = ${id} ORDER BY c.position`.execute(tx);
    return { ...rows[0], positions: chunks.rows.map(({ position }) => position), seen: chunks.rows.filter(({ seen }) => seen).length };
  });
}

const change = (id: DocumentId, set: string) => platform.db.platform((tx) => sql`UPDATE knowledge_documents SET ${sql.raw(set)} WHERE id = ${id}`.execute(tx));
const whole = (count = 40) => Array.from({ length: count }, (_, i) => i);
/** An embedder that does something before its n-th batch. */
const meanwhile = (n: number, act: () => Promise<unknown>): Embedder => {
  let batch = 0;
  return {
    model: offline.model,
    async embed(texts, signal) {
      if (++batch === n) await act();
      return offline.embed(texts, signal);
    },
  };
};
const failing: Embedder = { model: offline.model, embed: () => Promise.reject(new Error("the service is away")) };

describe("embedding a document", () => {
  it("leaves one set of passages, however often and at once it is asked for", async () => {
    const id = await newDocument();
    await Promise.all([embed(id), embed(id), embed(id)]);
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "ready", chunk_count: 40, positions: whole(), seen: 40, attempts: 0 });
  });

  it("begins again where somebody died half-way, and leaves nothing of him", async () => {
    const id = await newDocument();
    // The first batch is stored; then its process is gone for good, and its lease runs out.
    void embed(
      id,
      meanwhile(2, () => new Promise(() => {})),
    );
    await expect.poll(async () => (await stateOf(id)).positions.length).toBe(32);
    expect(await stateOf(id)).toMatchObject({ status: "embedding", seen: 0 });
    await embed(id);
    expect(await stateOf(id), "the lease still stands").toMatchObject({ status: "embedding" });
    await change(id, "lease_until = now() - interval '1 second'");
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "ready", positions: whole(), seen: 40 });
  });

  it("of somebody who was thought dead and comes back changes nothing", async () => {
    const id = await newDocument();
    await embed(
      id,
      meanwhile(2, async () => {
        await change(id, "lease_until = now() - interval '1 second'");
        await embed(id);
      }),
    );
    expect(await stateOf(id)).toMatchObject({ status: "ready", positions: whole(), seen: 40 });
  });

  it("leaves no passage behind when the document is deleted meanwhile", async () => {
    for (const batch of [1, 2]) {
      const id = await newDocument();
      await embed(
        id,
        meanwhile(batch, () => platform.db.platform((tx) => sql`DELETE FROM knowledge_documents WHERE id = ${id}`.execute(tx))),
      );
      expect((await stateOf(id)).positions).toEqual([]);
    }
  });

  it("is tried again later and later while the service is away, and at last given up with a reason", async () => {
    const id = await newDocument(1);
    await embed(id, failing);
    const first = await stateOf(id);
    expect(first).toMatchObject({ status: "queued", attempts: 1, error: "The passages could not be embedded and stored.", positions: [] });
    expect(first.waits_ms).toBeGreaterThan(5_000);
    await embed(id);
    expect(await stateOf(id), "not before its time").toMatchObject({ status: "queued", attempts: 1 });
    let waited = first.waits_ms ?? 0;
    for (let attempt = 2; attempt <= 8; attempt++) {
      await change(id, "next_attempt_at = now()");
      await embed(id, failing);
      const { waits_ms = 0 } = await stateOf(id);
      if (attempt < 6) expect(waits_ms).toBeGreaterThan(waited);
      waited = waits_ms;
    }
    expect(await stateOf(id)).toMatchObject({ status: "failed", error: "The passages could not be embedded and stored." });
    const [{ content } = { content: "" }] = (await platform.db.platform((tx) => sql<{ content: string }>`SELECT content FROM knowledge_documents WHERE id = ${id}`.execute(tx)))
      .rows;
    const again = await tenant.api("POST", "/v1/knowledge", { content });
    expect(again.body.status, "sending it again tries it again").toBe("queued");
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "ready", error: null, seen: 1 });
  });

  it("is given up when everybody dies who works on it", async () => {
    const id = await newDocument(1);
    for (let i = 0; i < 8; i++) {
      await platform.db.call("SELECT * FROM claim_document($1, $2, $3)", [id, 60_000, 8]);
      await change(id, "lease_until = now() - interval '1 second'");
    }
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "failed", error: expect.stringContaining("8 times"), positions: [] });
  });

  it("is handed back at once, and not counted, when the instance stops", async () => {
    const id = await newDocument();
    const stopping = new AbortController();
    const outcome = await embed(
      id,
      meanwhile(2, async () => stopping.abort()),
      stopping.signal,
    );
    expect(outcome).toEqual({ outcome: "later", retryAfterSec: 1 });
    expect(await stateOf(id)).toMatchObject({ status: "queued", attempts: 0, positions: [] });
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "ready", seen: 40 });
  });

  it("refuses vectors of another width before they reach the table", async () => {
    const id = await newDocument(1);
    await embed(id, { model: offline.model, embed: async (texts) => texts.map(() => new Float32Array(3)) });
    expect(await stateOf(id)).toMatchObject({ status: "queued", positions: [] });
    const infinite = await newDocument(1);
    await embed(infinite, { model: offline.model, embed: async (texts) => texts.map(() => new Float32Array(1536).fill(Number.NaN)) });
    expect(await stateOf(infinite)).toMatchObject({ status: "queued", positions: [] });
  });

  it("gives up what would be too many passages, and says so", async () => {
    const id = await newDocument(5_001);
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "failed", error: expect.stringContaining("5000 passages"), positions: [] });
  });
});

describe("wake", () => {
  const due = async () => new Set(await takeDueDocuments(platform.db, offline.model, 1_000));

  it("rings for a document that nobody heard of, for one whose holder died, and less and less often", async () => {
    const [unheard, held, done] = [await newDocument(1), await newDocument(1), await newDocument(1)];
    await embed(done);
    await platform.db.call("SELECT * FROM claim_document($1, $2, $3)", [held, 60_000, 8]);
    expect((await due()).size, "all of them are fresh").toBe(0);
    for (const id of [unheard, held]) await change(id, "next_ring_at = now() - interval '1 second'");
    const first = await due();
    expect([unheard, held, done].map((id) => first.has(id))).toEqual([true, true, false]);
    expect((await due()).has(unheard)).toBe(false);
  });

  it("has a document embedded again once another model is in use, and its old vectors are compared with nothing meanwhile", async () => {
    const id = await newDocument(1);
    await embed(id, { model: "model-of-old", embed: (texts, signal) => offline.embed(texts, signal) });
    expect(await stateOf(id)).toMatchObject({ status: "ready", model: "model-of-old" });
    expect(
      (await tenant.api("GET", `/v1/knowledge/search?q=${encodeURIComponent("This is passage 0 of")}`)).body.results.map((r: { document_id: string }) =>
        parseId("document", r.document_id),
      ),
    ).not.toContain(id);
    expect((await due()).has(id), "not while instances of both may run").toBe(false);
    await change(id, "embedded_at = now() - interval '6 minutes'");
    expect((await due()).has(id)).toBe(true);
    await embed(id);
    expect(await stateOf(id)).toMatchObject({ status: "ready", model: offline.model, positions: [0], seen: 1 });
  });

  it("rings through Redis, and a bridge that cannot deliver fails the document with a reason", async () => {
    const id = await newDocument(1);
    await change(id, "next_ring_at = now() - interval '1 second'");
    await platform.runCron("wake");
    expect((await stateOf(id)).status).toBe("queued");
    await platform.db.call("SELECT fail_undeliverable_document($1, $2)", [id, "It could not be delivered."]);
    expect(await stateOf(id)).toMatchObject({ status: "failed", error: "It could not be delivered." });
  });
});
