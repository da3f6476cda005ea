import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { refuseUrl } from "../../shared/webhooks/refuse-url.ts";
import { updateWebhook, WebhookDescription, WebhookEvents, WebhookUrl, WebhookView, webhookView } from "../../shared/webhooks/webhooks.ts";

/** Changes an endpoint. What waits for it goes to the new address; what happens while it is disabled is held, and sent by `recover`. */
export default http({
  name: "webhook-update",
  summary: "Change an endpoint's address, events or description; disable or enable it.",
  route: "PATCH /v1/webhooks/{webhook_id}",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db", "egress"],
  params: v.object({ webhook_id: idParam("webhook") }),
  body: v.strictObject({
    url: v.optional(WebhookUrl),
    events: v.optional(WebhookEvents),
    description: v.optional(WebhookDescription),
    enabled: v.optional(v.boolean()),
  }),
  replies: { 200: WebhookView },
  documented: { requestExamples: { enable: { summary: "Use it again after it was disabled", value: { enabled: true } } } },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, db, egress }) {
    const url = body.url === undefined ? undefined : refuseUrl(egress, body.url);
    const row = await updateWebhook(db, caller.tenantId, caller, params.webhook_id, { ...body, url });
    if (!row) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    return ok(webhookView(row));
  },
});
