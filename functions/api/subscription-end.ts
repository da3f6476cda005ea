import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { endSubscription } from "../../shared/metering/subscriptions.ts";

/** Ends a subscription. After the 204 no task is admitted under it; those that were go on. The plugin's fee is for the days until now. */
export default http({
  name: "subscription-end",
  summary: "End a subscription at once; tasks that were admitted finish.",
  route: "DELETE /v1/subscriptions/{subscription_id}",
  scope: "billing:admin",
  liveKeyOnly: true,
  needs: ["db"],
  params: v.object({ subscription_id: idParam("subscription") }),
  replies: { 204: null },
  scale: { min: 0, max: 3, concurrency: 40 },

  async handle({ params, caller, db }) {
    if (!(await endSubscription(db, caller, params.subscription_id))) throw new Refusal("NOT_FOUND", { message: "There is no such subscription." });
    return noContent();
  },
});
