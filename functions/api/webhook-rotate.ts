import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { created, http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { mintWebhookSecret, sealWebhookSecret } from "../../shared/webhooks/webhook-secret.ts";
import { rotateWebhookSecret, WebhookWithSecret, webhookView } from "../../shared/webhooks/webhooks.ts";

const MAX_GRACE_SEC = 7 * 86_400;
const GRACE_SEC = 86_400;

/** Replaces the secret. While the grace period lasts, each delivery carries two signatures: the new secret's and the old one's. */
export default http({
  name: "webhook-rotate",
  summary: "Replace an endpoint's signing secret; the old one signs too for a grace period of 24 hours unless said.",
  route: "POST /v1/webhooks/{webhook_id}/rotate",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db", "keyRing"],
  params: v.object({ webhook_id: idParam("webhook") }),
  body: v.strictObject({ grace_seconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_GRACE_SEC)), GRACE_SEC) }),
  replies: { 201: WebhookWithSecret },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, db, keyRing }) {
    const secret = mintWebhookSecret();
    const sealed = sealWebhookSecret(keyRing, caller.tenantId, params.webhook_id, secret);
    const row = await rotateWebhookSecret(db, caller.tenantId, caller, params.webhook_id, sealed, body.grace_seconds);
    if (!row) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    return created({ ...webhookView(row), secret });
  },
});
