/** Stands in for `shared/knowledge/retrieve.ts` until it is here. */
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import type { KnowledgeChunk } from "../sdk/src/envelopes.ts";

export async function retrieveKnowledge(
  _stores: { db: TenantDb; embedder: Embedder },
  _tenantId: TenantId,
  _query: { text: string; vector: Float32Array | null },
): Promise<KnowledgeChunk[]> {
  return [];
}
