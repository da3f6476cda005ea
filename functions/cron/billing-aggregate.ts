import { cron } from "../../shared/host/declare.ts";
import { closeMonths } from "../../shared/metering/close-months.ts";

/** Makes an invoice of every month that is over. It may run twice, at once with itself, late, or be killed: each month is closed once. */
export default cron({
  name: "billing-aggregate",
  summary: "Close months that are over: one invoice a tenant and month.",
  schedule: "0 40 * * * *",
  needs: ["platformDb", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },
  timeoutSec: 600,

  async run({ platformDb, telemetry, signal }) {
    await closeMonths(platformDb, telemetry, signal);
  },
});
