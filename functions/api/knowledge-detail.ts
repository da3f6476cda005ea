import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { DocumentView, documentView, findDocument } from "../../shared/knowledge/documents.ts";

/** One document's status: whether it can be found yet, and why not. */
export default http({
  name: "knowledge-detail",
  summary: "Read one document's status.",
  route: "GET /v1/knowledge/{document_id}",
  scope: "knowledge:read",
  needs: ["db"],
  params: v.object({ document_id: idParam("document") }),
  replies: { 200: DocumentView },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    const document = await findDocument(db, caller.tenantId, params.document_id);
    if (!document) throw new Refusal("NOT_FOUND", { message: "There is no such document." });
    return ok(documentView(document));
  },
});
