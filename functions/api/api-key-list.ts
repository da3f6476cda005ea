import * as v from "valibot";
import { ApiKeyView, apiKeyView, listApiKeys } from "../../shared/access/api-keys.ts";
import { http, ok } from "../../shared/host/declare.ts";

/** The tenant's keys, newest first; never their text. */
export default http({
  name: "api-key-list",
  summary: "List API keys, newest first.",
  route: "GET /v1/api-keys",
  scope: "keys:admin",
  needs: ["db", "cursors"],
  query: v.strictObject({
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "50",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ keys: v.array(ApiKeyView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["api-keys", caller.tenantId];
    const before = query.cursor === undefined ? null : cursors.open(scope, query.cursor);
    const rows = await listApiKeys(db, caller.tenantId, before, query.limit);
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ keys: page.map(apiKeyView), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
