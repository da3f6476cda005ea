import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { searchKnowledge } from "../../shared/knowledge/retrieve.ts";

const Result = v.strictObject({ document_id: v.string(), content: v.string(), source_url: v.nullable(v.string()), similarity: v.number(), heading: v.nullable(v.string()) });

/** The passages that bear on a question, as a task with these words would find them. */
export default http({
  name: "knowledge-search",
  summary: "Search the organisation's knowledge by meaning.",
  route: "GET /v1/knowledge/search",
  scope: "knowledge:read",
  needs: ["db", "embedder"],
  query: v.strictObject({
    q: v.pipe(v.string(), v.trim(), v.minLength(1, "must not be empty"), v.maxLength(2_000)),
    limit: v.optional(v.pipe(v.string(), v.regex(/^\d{1,2}$/, "must be 1 to 50"), v.transform(Number), v.minValue(1, "must be 1 to 50"), v.maxValue(50, "must be 1 to 50")), "8"),
  }),
  replies: { 200: v.strictObject({ results: v.array(Result) }) },
  documented: { refusals: ["SERVICE_UNAVAILABLE"] },
  scale: { min: 0, max: 10, concurrency: 40 },

  async handle({ query, caller, db, embedder }) {
    const hits = await searchKnowledge({ db, embedder }, caller.tenantId, { text: query.q, vector: null }, query.limit).catch((cause: unknown) => {
      if (cause instanceof Refusal) throw cause;
      throw new Refusal("SERVICE_UNAVAILABLE", { message: "The question could not be embedded; try again shortly.", retryAfterSec: 5, cause });
    });
    return ok({
      results: hits.map(({ document_id, content, source_url, similarity, heading }) => ({
        document_id: publicId("document", document_id),
        content,
        source_url,
        similarity,
        heading: heading || null,
      })),
    });
  },
});
