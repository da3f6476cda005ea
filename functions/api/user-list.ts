import * as v from "valibot";
import { listUsers, UserView, userView } from "../../shared/access/users.ts";
import { http, ok } from "../../shared/host/declare.ts";

/** The tenant's users, newest first. */
export default http({
  name: "user-list",
  summary: "List users, newest first.",
  route: "GET /v1/users",
  scope: "users:admin",
  needs: ["db", "cursors"],
  query: v.strictObject({
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "50",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ users: v.array(UserView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["users", caller.tenantId];
    const before = query.cursor === undefined ? null : cursors.open(scope, query.cursor);
    const rows = await listUsers(db, caller.tenantId, before, query.limit);
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ users: page.map(userView), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
