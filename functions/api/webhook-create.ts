import * as v from "valibot";
import { created, http } from "../../shared/host/declare.ts";
import { newId } from "../../shared/ids.ts";
import { refuseUrl } from "../../shared/webhooks/refuse-url.ts";
import { mintWebhookSecret, sealWebhookSecret } from "../../shared/webhooks/webhook-secret.ts";
import { createWebhook, WebhookDescription, WebhookEvents, WebhookUrl, WebhookWithSecret, webhookView } from "../../shared/webhooks/webhooks.ts";

/** Registers an endpoint. The secret that signs what it is sent leaves the system once, in this reply. */
export default http({
  name: "webhook-create",
  summary: "Register an endpoint for events; its signing secret is shown once.",
  route: "POST /v1/webhooks",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db", "keyRing", "egress"],
  body: v.strictObject({ url: WebhookUrl, events: WebhookEvents, description: v.optional(WebhookDescription, "") }),
  replies: { 201: WebhookWithSecret },
  documented: {
    refusals: ["CONFLICT"],
    requestExamples: {
      tasks: { summary: "Hear of every task that ends", value: { url: "https://hooks.aau.io/tasks", events: ["task.completed", "task.failed", "task.cancelled"] } },
    },
  },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ body, caller, db, keyRing, egress }) {
    const url = refuseUrl(egress, body.url);
    const [id, secret] = [newId("webhook"), mintWebhookSecret()];
    const row = await createWebhook(db, caller.tenantId, caller, { ...body, id, url, secret: sealWebhookSecret(keyRing, caller.tenantId, id, secret) });
    return created({ ...webhookView(row), secret });
  },
});
