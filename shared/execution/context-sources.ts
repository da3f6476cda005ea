/** Stands in for `shared/conversations/history.ts` and `shared/knowledge/retrieve.ts` until they are here. */
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import type { KnowledgeChunk, Turn } from "../sdk/src/envelopes.ts";

export interface ContextSources {
  embedder: Embedder;
}

export async function loadHistory(_stores: { db: TenantDb }, _tenantId: TenantId, _conversationId: string | null, _userId: string | null): Promise<Turn[]> {
  return [];
}

export async function retrieveKnowledge(
  _stores: { db: TenantDb; embedder: Embedder },
  _tenantId: TenantId,
  _query: { text: string; vector: Float32Array | null },
): Promise<KnowledgeChunk[]> {
  return [];
}
