import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { accepted, http } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { redeliver } from "../../shared/webhooks/deliveries.ts";

/** Sends one delivery again, whatever became of it: the same event under the same id, with all its attempts before it. */
export default http({
  name: "webhook-redeliver",
  summary: "Send one delivery again.",
  route: "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db", "ring"],
  params: v.object({ webhook_id: idParam("webhook"), delivery_id: idParam("delivery") }),
  replies: { 202: v.strictObject({ delivery_id: v.string(), status: v.literal("pending") }) },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, request, db, ring }) {
    if (!(await redeliver(db, caller.tenantId, caller, params.webhook_id, params.delivery_id))) throw new Refusal("NOT_FOUND", { message: "There is no such delivery." });
    await ring.webhook(params.webhook_id, request.traceparent);
    return accepted({ delivery_id: publicId("delivery", params.delivery_id), status: "pending" });
  },
});
