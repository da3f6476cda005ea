/**
 * One wake-up of `knowledge-embed`: claims a document, cuts it, embeds it batch by batch, and lets its chunks be found all at once. Every write
 * carries the lease; whoever loses it stops, and what he wrote is never seen.
 */
import * as v from "valibot";
import type { PlatformDb, TenantDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { asId, type DocumentId, type TenantId } from "../ids.ts";
import { EMBEDDING_DIMENSIONS, type Embedder } from "../models/embedder.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { type Chunk, chunkDocument } from "./chunk-document.ts";
import { MediaType } from "./documents.ts";
import { vectorLiteral } from "./vector-literal.ts";

export interface DocumentEmbedder {
  db: TenantDb;
  platformDb: PlatformDb;
  embedder: Embedder;
  telemetry: Telemetry;
}

/** Renewed with every batch, so it must outlast one batch and the longest document's cutting. */
const LEASE_MS = 120_000;
const BATCH = 32;
const EMBED_TIMEOUT_MS = 30_000;
/** With their delays, eight attempts span about three hours of an embedding service that is away. */
const MAX_ATTEMPTS = 8;
const FIRST_DELAY_MS = 10_000;
const LAST_DELAY_MS = 3_600_000;
const MAX_CHUNKS = 5_000;

const Claimed = v.variant("outcome", [
  v.object({ outcome: v.literal("gone") }),
  v.object({ outcome: v.literal("ended") }),
  v.object({ outcome: v.literal("claimed"), tenant_id: v.string(), lease_token: v.string(), attempt: v.number(), media_type: MediaType, content: v.string() }),
]);

interface Lease {
  tenantId: TenantId;
  id: DocumentId;
  token: string;
}

class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}
/** Trying again would not help; the message is for the document's owner. */
class Unembeddable extends Error {
  override readonly name = "Unembeddable";
}

/** `stopping` aborts when the instance must give its work back. */
export async function embedDocument(parts: DocumentEmbedder, id: DocumentId, stopping: AbortSignal): Promise<{ outcome: "done" } | { outcome: "later"; retryAfterSec: number }> {
  const startedAt = performance.now();
  const [row] = await parts.platformDb.call("SELECT * FROM claim_document($1, $2, $3)", [id, LEASE_MS, MAX_ATTEMPTS]);
  const claim = v.parse(Claimed, row);
  FAILPOINT: await failpoint("knowledge.after_claim");
  if (claim.outcome !== "claimed") return { outcome: "done" };
  const lease: Lease = { tenantId: asId("tenant", claim.tenant_id), id, token: claim.lease_token };
  const seen = { documentId: id, tenantId: lease.tenantId };
  try {
    const chunks = await chunkDocument(claim.content, claim.media_type, stopping);
    if (chunks.length > MAX_CHUNKS) throw new Unembeddable(`It is cut into more than ${MAX_CHUNKS} passages; send it in parts.`);
    await embedChunks(parts, lease, chunks, stopping);
    FAILPOINT: await failpoint("knowledge.before_finish");
    if (!(await finish(parts, lease))) throw new LeaseLost();
    FAILPOINT: await failpoint("knowledge.after_finish");
    parts.telemetry.documentEmbedded({ ...seen, chunks: chunks.length, durationMs: performance.now() - startedAt });
    return { outcome: "done" };
  } catch (error) {
    if (error instanceof LeaseLost) return { outcome: "done" };
    if (stopping.aborted) {
      await putOff(parts.db, lease, { error: null, delayMs: 0, counts: false });
      return { outcome: "later", retryAfterSec: 1 };
    }
    const isFinal = error instanceof Unembeddable || claim.attempt >= MAX_ATTEMPTS;
    const delayMs = isFinal ? null : Math.min(FIRST_DELAY_MS * 4 ** (claim.attempt - 1), LAST_DELAY_MS);
    await putOff(parts.db, lease, { error: error instanceof Unembeddable ? error.message : "The passages could not be embedded and stored.", delayMs, counts: true });
    parts.telemetry.documentPutOff({ ...seen, attempt: claim.attempt, isFinal, error });
    return { outcome: "done" };
  }
}

async function embedChunks({ db, embedder }: DocumentEmbedder, lease: Lease, chunks: readonly Chunk[], stopping: AbortSignal): Promise<void> {
  for (let from = 0; from < chunks.length; from += BATCH) {
    const batch = chunks.slice(from, from + BATCH);
    // The headings are a part of what a passage means.
    const texts = batch.map(({ heading, content }) => (heading ? `${heading}\n${content}` : content));
    const vectors = await embedder.embed(texts, AbortSignal.any([stopping, timeLimit(EMBED_TIMEOUT_MS)]));
    if (vectors.length !== batch.length || vectors.some((vector) => vector.length !== EMBEDDING_DIMENSIONS)) throw new Error("the embedder's answer has the wrong shape");
    FAILPOINT: await failpoint("knowledge.after_embed");
    const [row] = await db.call<{ held: boolean }>("SELECT add_chunks($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS held", [
      lease.tenantId,
      lease.id,
      lease.token,
      LEASE_MS,
      embedder.model,
      batch.map((_, i) => from + i),
      batch.map(({ heading }) => heading),
      batch.map(({ content }) => content),
      batch.map(({ tokenCount }) => tokenCount),
      vectors.map(vectorLiteral),
    ]);
    if (!row?.held) throw new LeaseLost();
    FAILPOINT: await failpoint("knowledge.after_chunks");
  }
}

async function finish({ db, embedder }: DocumentEmbedder, lease: Lease): Promise<boolean> {
  const [row] = await db.call<{ held: boolean }>("SELECT finish_document($1, $2, $3, $4) AS held", [lease.tenantId, lease.id, lease.token, embedder.model]);
  return row?.held === true;
}

async function putOff(db: TenantDb, lease: Lease, { error, delayMs, counts }: { error: string | null; delayMs: number | null; counts: boolean }): Promise<void> {
  await db.call("SELECT put_off_document($1, $2, $3, $4, $5, $6)", [lease.tenantId, lease.id, lease.token, error, delayMs, counts]);
}
