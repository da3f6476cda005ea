import { cron } from "../../shared/host/declare.ts";
import { announceInvoices } from "../../shared/metering/announce-invoices.ts";

/** Sends each closed invoice to the operator's payment system until it takes it: at least once, under one event id. */
export default cron({
  name: "invoice-announce",
  summary: "Send closed invoices to the payment system, if there is one.",
  schedule: "30 * * * * *",
  needs: ["platformDb", "paymentSystem", "settings", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },
  timeoutSec: 300,

  async run({ platformDb, paymentSystem, settings, telemetry, signal }) {
    if (paymentSystem) await announceInvoices({ db: platformDb, pay: paymentSystem, source: settings.PUBLIC_URL, telemetry }, signal);
  },
});
