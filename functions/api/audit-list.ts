import * as v from "valibot";
import { AuditAction, AuditView, listAudit } from "../../shared/access/audit-log.ts";
import { http, ok } from "../../shared/host/declare.ts";

const Time = v.pipe(
  v.string(),
  v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
  v.transform((text) => new Date(text)),
);

/** What was done to the tenant's keys, users, secrets, webhooks, subscriptions, configuration and personal data, and by whom. */
export default http({
  name: "audit-list",
  summary: "List what was done to keys, users, secrets and settings, newest first.",
  route: "GET /v1/audit",
  scope: "audit:read",
  needs: ["db", "cursors"],
  query: v.strictObject({
    action: v.optional(AuditAction),
    actor: v.optional(v.pipe(v.string(), v.regex(/^[\w:-]{1,64}$/, "must be the id of a user or a key, `operator`, or `platform:…`"))),
    from: v.optional(Time),
    to: v.optional(Time),
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "50",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ entries: v.array(AuditView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["audit", caller.tenantId, query.action, query.actor, query.from?.toISOString(), query.to?.toISOString()];
    const before = query.cursor === undefined ? null : Number(cursors.open(scope, query.cursor));
    const entries = await listAudit(db, caller.tenantId, query, before, query.limit);
    const page = entries.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ entries: page, next_cursor: entries.length > query.limit && last ? cursors.seal(scope, String(last.seq)) : null });
  },
});
