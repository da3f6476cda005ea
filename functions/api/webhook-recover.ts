import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { accepted, http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { recoverSince } from "../../shared/webhooks/deliveries.ts";

/** Sends again what did not arrive since a time: what failed, and what was held while the endpoint was disabled. */
export default http({
  name: "webhook-recover",
  summary: "Send again all that failed or was held since a time.",
  route: "POST /v1/webhooks/{webhook_id}/recover",
  scope: "webhooks:admin",
  liveKeyOnly: true,
  needs: ["db", "ring"],
  params: v.object({ webhook_id: idParam("webhook") }),
  body: v.strictObject({
    since: v.pipe(
      v.string(),
      v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
      v.metadata({ examples: ["2027-01-31T12:00:00Z"] }),
      v.transform((text) => new Date(text)),
      v.check((at) => Number.isFinite(at.getTime()), "must be a time such as 2027-01-31T12:00:00Z"),
    ),
  }),
  replies: { 202: v.strictObject({ recovered: v.number() }) },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, request, db, ring }) {
    const recovered = await recoverSince(db, caller.tenantId, caller, params.webhook_id, body.since);
    if (recovered === null) throw new Refusal("NOT_FOUND", { message: "There is no such webhook." });
    if (recovered > 0) await ring.webhook(params.webhook_id, request.traceparent);
    return accepted({ recovered });
  },
});
