import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { listWebhooks, WebhookView, webhookView } from "../../shared/webhooks/webhooks.ts";

/** The tenant's endpoints, oldest first; never their secrets. There are at most 20, so there is one page. */
export default http({
  name: "webhook-list",
  summary: "List endpoints and how they do.",
  route: "GET /v1/webhooks",
  scope: "webhooks:admin",
  needs: ["db"],
  replies: { 200: v.strictObject({ webhooks: v.array(WebhookView) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ caller, db }) {
    return ok({ webhooks: (await listWebhooks(db, caller.tenantId)).map(webhookView) });
  },
});
