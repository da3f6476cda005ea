/** A tenant's documents: what a row says, and the statements that list, read and delete. */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { type DocumentId, publicId, type TenantId } from "../ids.ts";

export const MediaType = v.picklist(["text/markdown", "text/plain", "text/html"]);
export type MediaType = v.InferOutput<typeof MediaType>;

export const DocumentStatus = v.picklist(["queued", "embedding", "ready", "failed"]);

const DocumentRow = v.object({
  id: v.string(),
  status: DocumentStatus,
  source_url: v.nullable(v.string()),
  media_type: MediaType,
  bytes: v.number(),
  chunk_count: v.number(),
  error: v.nullable(v.string()),
  created_at: v.date(),
  embedded_at: v.nullable(v.date()),
});
export type DocumentRow = v.InferOutput<typeof DocumentRow>;
const COLUMNS = ["id", "status", "source_url", "media_type", "bytes", "chunk_count", "error", "created_at", "embedded_at"] as const;

export const DocumentView = v.strictObject({
  document_id: v.string(),
  status: DocumentStatus,
  source_url: v.nullable(v.string()),
  media_type: MediaType,
  bytes: v.number(),
  chunks: v.number(),
  /** Why it failed, or why the last attempt did. */
  error: v.nullable(v.string()),
  created_at: v.string(),
  embedded_at: v.nullable(v.string()),
});

export function documentView({ id, chunk_count, created_at, embedded_at, ...row }: DocumentRow): v.InferOutput<typeof DocumentView> {
  return { document_id: publicId("document", id), ...row, chunks: chunk_count, created_at: created_at.toISOString(), embedded_at: embedded_at?.toISOString() ?? null };
}

/** Newest first; one row more than `limit` says that there is a next page. */
export async function listDocuments(
  db: TenantDb,
  tenantId: TenantId,
  filter: { status?: v.InferOutput<typeof DocumentStatus> },
  before: DocumentId | null,
  limit: number,
): Promise<DocumentRow[]> {
  const rows = await db.tenant(tenantId, (tx) => {
    let query = tx.selectFrom("knowledge_documents").select(COLUMNS).where("tenant_id", "=", tenantId);
    if (filter.status) query = query.where("status", "=", filter.status);
    if (before) query = query.where("id", "<", before);
    return query
      .orderBy("id", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(DocumentRow), rows);
}

export async function findDocument(db: TenantDb, tenantId: TenantId, id: DocumentId): Promise<DocumentRow | null> {
  const row = await db.tenant(tenantId, (tx) => tx.selectFrom("knowledge_documents").select(COLUMNS).where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst());
  return row ? v.parse(DocumentRow, row) : null;
}

/** Its chunks go with it, and whoever embeds it right now can add no more. False: the tenant has no such document. */
export async function deleteDocument(db: TenantDb, tenantId: TenantId, id: DocumentId): Promise<boolean> {
  const row = await db.tenant(tenantId, (tx) => tx.deleteFrom("knowledge_documents").where("tenant_id", "=", tenantId).where("id", "=", id).returning("id").executeTakeFirst());
  return row !== undefined;
}
