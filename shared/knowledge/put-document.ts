import { createHash } from "node:crypto";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { asId, type DocumentId, newId, type TenantId } from "../ids.ts";
import { documentText } from "./document-text.ts";
import { DocumentStatus, type MediaType } from "./documents.ts";

const Stored = v.object({ id: v.string(), status: DocumentStatus });

/** Stores a document to be embedded. The same content twice is one document; its source is the last one given. Throws a refusal for what cannot be read. */
export async function putDocument(
  db: TenantDb,
  tenantId: TenantId,
  { content, mediaType, sourceUrl }: { content: string; mediaType: MediaType; sourceUrl: string | null },
): Promise<{ id: DocumentId; status: v.InferOutput<typeof DocumentStatus> }> {
  const text = documentText(content, mediaType);
  const sha256 = createHash("sha256").update(mediaType).update("\0").update(content).digest("hex");
  const values = [tenantId, newId("document"), sha256, sourceUrl, mediaType, text, Buffer.byteLength(content)];
  const [row] = await db.call("SELECT * FROM put_document($1, $2, $3, $4, $5, $6, $7)", values);
  const { id, status } = v.parse(Stored, row);
  return { id: asId("document", id), status };
}
