/** Passages with chosen vectors, written past the functions that embed: for searches among many. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { vectorLiteral } from "../../shared/knowledge/vector-literal.ts";

const CHUNKS_A_DOCUMENT = 20;

/** The n-th passage of the call says `passage n`. */
export async function insertPassages(client: pg.ClientBase, tenantId: string, model: string, vectors: readonly Float32Array[], { tokens = 400 } = {}): Promise<void> {
  const documents = Array.from({ length: Math.ceil(vectors.length / CHUNKS_A_DOCUMENT) }, () => randomUUID());
  await client.query(
    `INSERT INTO knowledge_documents (id, tenant_id, sha256, media_type, content, bytes, status, edition, embedding_model)
     SELECT id, $1, id::text, 'text/plain', 'passages', 8, 'ready', id, $3 FROM unnest($2::uuid[]) AS id`,
    [tenantId, documents, model],
  );
  await client.query(
    `INSERT INTO org_knowledge_chunks (tenant_id, document_id, edition, position, heading, content, token_count, embedding_model, embedding)
     SELECT $1, d, d, n, '', 'passage ' || n - 1, $5, $4, e::real[]
     FROM unnest($2::text[]) WITH ORDINALITY AS c(e, n), LATERAL (SELECT ($3::uuid[])[(n - 1) / ${CHUNKS_A_DOCUMENT} + 1] AS d) s`,
    [tenantId, vectors.map(vectorLiteral), documents, model, tokens],
  );
}

/** Runs the work without pgvector's index and builds it again after: the same index in a fraction of the time. Without pgvector, just runs it. */
export async function withIndexAfter(client: pg.Client, work: () => Promise<void>): Promise<void> {
  const { rows } = await client.query<{ definition: string }>("SELECT indexdef AS definition FROM pg_indexes WHERE indexname = 'org_knowledge_chunks_near'");
  if (rows.length > 0) await client.query("DROP INDEX org_knowledge_chunks_near");
  await work();
  for (const { definition } of rows) await client.query(definition);
  await client.query("ANALYZE org_knowledge_chunks, knowledge_documents");
}
