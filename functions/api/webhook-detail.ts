import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { findWebhook, WebhookView, webhookView } from "../../shared/webhooks/webhooks.ts";

export default http({
  name: "webhook-detail",
  summary: "Show an endpoint and how it does.",
  route: "GET /v1/webhooks/{webhook_id}",
  scope: "webhooks:admin",
  needs: ["db"],
  params: v.object({ webhook_id: idParam("webhook") }),
  replies: { 200: WebhookView },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    const row = await findWebhook(db, caller.tenantId, params.webhook_id);
    if (!row) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    return ok(webhookView(row));
  },
});
