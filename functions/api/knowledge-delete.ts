import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { deleteDocument } from "../../shared/knowledge/documents.ts";

/** Deletes a document. After the 204 no search and no task finds a passage of it, also when it was being embedded. */
export default http({
  name: "knowledge-delete",
  summary: "Delete a document and its passages.",
  route: "DELETE /v1/knowledge/{document_id}",
  scope: "knowledge:write",
  liveKeyOnly: true,
  needs: ["db"],
  params: v.object({ document_id: idParam("document") }),
  replies: { 204: null },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    if (!(await deleteDocument(db, caller.tenantId, params.document_id))) throw new Refusal("NOT_FOUND", { message: "There is no such document." });
    return noContent();
  },
});
