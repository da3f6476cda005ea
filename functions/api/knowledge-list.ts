import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { asId } from "../../shared/ids.ts";
import { DocumentStatus, DocumentView, documentView, listDocuments } from "../../shared/knowledge/documents.ts";

/** The tenant's documents with their status, newest first. */
export default http({
  name: "knowledge-list",
  summary: "List the organisation's documents, newest first.",
  route: "GET /v1/knowledge",
  scope: "knowledge:read",
  needs: ["db", "cursors"],
  query: v.strictObject({
    status: v.optional(DocumentStatus),
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "20",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ documents: v.array(DocumentView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["knowledge", caller.tenantId, query.status];
    const before = query.cursor === undefined ? null : asId("document", cursors.open(scope, query.cursor));
    const rows = await listDocuments(db, caller.tenantId, query, before, query.limit);
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ documents: page.map(documentView), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
