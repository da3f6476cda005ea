import * as v from "valibot";
import { accepted, http } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { DocumentStatus, MediaType } from "../../shared/knowledge/documents.ts";
import { putDocument } from "../../shared/knowledge/put-document.ts";

/** It is shown as a source and never fetched, so all that matters is that nobody who follows it is led astray. */
const isWebAddress = (text: string) => {
  const url = URL.canParse(text) ? new URL(text) : null;
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
};

/** Takes in a document of the tenant's; its passages are found as soon as its status is `ready`. */
export default http({
  name: "knowledge-index",
  summary: "Add a document to the organisation's knowledge.",
  route: "POST /v1/knowledge",
  scope: "knowledge:write",
  liveKeyOnly: true,
  needs: ["db", "ring"],
  maxBodyBytes: 5 * 1024 * 1024,
  memoryMib: 512,
  body: v.strictObject({
    content: v.pipe(v.string(), v.minLength(1)),
    source_url: v.optional(
      v.nullable(v.pipe(v.string(), v.maxLength(2048), v.check(isWebAddress, "must be an http or https address without credentials"), v.metadata({ format: "uri" }))),
    ),
    media_type: v.optional(MediaType, "text/markdown"),
  }),
  replies: { 202: v.strictObject({ document_id: v.string(), status: DocumentStatus }) },
  documented: { refusals: ["UNSUPPORTED_MEDIA_TYPE"] },
  scale: { min: 0, max: 10, concurrency: 20 },

  async handle({ body, caller, request, db, ring }) {
    const { id, status } = await putDocument(db, caller.tenantId, { content: body.content, mediaType: body.media_type, sourceUrl: body.source_url ?? null });
    // Redis away: the row says that it is due, and `wake` rings.
    if (status === "queued") await ring.document(id, request.traceparent);
    return accepted({ document_id: publicId("document", id), status });
  },
});
