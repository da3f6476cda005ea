import * as v from "valibot";
import { event } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { deliverWebhooks } from "../../shared/webhooks/deliver-webhooks.ts";

/** Sends what is due for one endpoint of a tenant. Any number of wake-ups send each event once, and again only when it is not known to have arrived. */
export default event({
  name: "webhook-deliver",
  summary: "Tell one endpoint what is due, signed, at most two requests at a time.",
  event: "io.aau.webhook.due",
  stream: "stream:webhooks",
  data: v.object({ webhook_id: idParam("webhook") }),
  needs: ["db", "platformDb", "ring", "keyRing", "egress", "settings", "telemetry"],
  scale: { min: 0, max: 10, concurrency: 80 },
  timeoutSec: 60,

  handle({ data, signal, settings, ...parts }) {
    return deliverWebhooks({ ...parts, publicUrl: settings.PUBLIC_URL }, data.webhook_id, signal);
  },
});
