import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { deleteWebhook } from "../../shared/webhooks/webhooks.ts";

/** Deletes an endpoint and what waits for it. No request begins after the 204; one that is on its way may still arrive. */
export default http({
  name: "webhook-delete",
  summary: "Delete an endpoint and its deliveries.",
  route: "DELETE /v1/webhooks/{webhook_id}",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db"],
  params: v.object({ webhook_id: idParam("webhook") }),
  replies: { 204: null },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    if (!(await deleteWebhook(db, caller.tenantId, caller, params.webhook_id))) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    return noContent();
  },
});
