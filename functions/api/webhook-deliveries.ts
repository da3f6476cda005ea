import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { DeliveryStatus, DeliveryView, deliveryView, listDeliveries } from "../../shared/webhooks/deliveries.ts";

/** What an endpoint was sent and is to be sent, newest first, with every attempt and what came back. Kept for 30 days. */
export default http({
  name: "webhook-deliveries",
  summary: "List an endpoint's deliveries with every attempt, newest first.",
  route: "GET /v1/webhooks/{webhook_id}/deliveries",
  scope: "webhooks:admin",
  needs: ["db", "cursors"],
  params: v.object({ webhook_id: idParam("webhook") }),
  query: v.strictObject({
    status: v.optional(DeliveryStatus),
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "20",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ deliveries: v.array(DeliveryView), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, query, caller, db, cursors }) {
    const scope = ["webhook-deliveries", caller.tenantId, params.webhook_id, query.status];
    const before = query.cursor === undefined ? null : cursors.open(scope, query.cursor);
    const rows = await listDeliveries(db, caller.tenantId, params.webhook_id, query, before, query.limit);
    if (!rows) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ deliveries: page.map(deliveryView), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
