import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { asId } from "../../shared/ids.ts";
import { listSubscriptions, SubscriptionView, subscriptionView } from "../../shared/metering/subscriptions.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** The tenant's subscriptions with what is left of their quotas this month, newest first. */
export default http({
  name: "subscription-list",
  summary: "List subscriptions with their quotas, newest first.",
  route: "GET /v1/subscriptions",
  scope: "billing:read",
  needs: ["db", "cursors"],
  query: v.strictObject({
    status: v.optional(v.picklist(["active", "ended"])),
    plugin: v.optional(PluginName),
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "20",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ subscriptions: v.array(SubscriptionView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 3, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["subscriptions", caller.tenantId, query.status, query.plugin];
    const before = query.cursor === undefined ? null : asId("subscription", cursors.open(scope, query.cursor));
    const rows = await listSubscriptions(db, caller.tenantId, query, before, query.limit);
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ subscriptions: page.map(subscriptionView), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
