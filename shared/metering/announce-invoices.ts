/**
 * Tells an external payment system of closed invoices. The invoice's row is the outbox: it is put off before it is sent and marked after it was
 * taken, so a crash at any point sends it again; its event's id is the invoice's, by which the receiver knows it.
 */
import { CloudEvent, HTTP } from "cloudevents";
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { publicId } from "../ids.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { Invoice, invoiceView } from "./invoices.ts";

/** Where announcements go; one POST of a structured CloudEvent. Throws what the receiver did not take. */
export type PaymentSystem = (event: { body: string; headers: Record<string, string> }, signal: AbortSignal) => Promise<void>;

const BATCH = 20;
const Taken = v.array(v.object({ invoice: Invoice, attempt: v.number() }));

interface Doors {
  db: PlatformDb;
  pay: PaymentSystem;
  source: string;
  telemetry: Pick<Telemetry, "invoiceAnnounced">;
}

/** One round over what is due; what fails is due again later. */
export async function announceInvoices({ db, pay, source, telemetry }: Doors, signal: AbortSignal): Promise<void> {
  for (;;) {
    const taken = v.parse(Taken, await db.call("SELECT * FROM take_invoices_to_announce($1)", [BATCH]));
    for (const { invoice, attempt } of taken) {
      let error: unknown = null;
      try {
        await pay(eventOf(invoice, source), signal);
        FAILPOINT: await failpoint("announce.before_mark");
        await db.call("SELECT mark_announced($1)", [invoice.id]);
      } catch (caught) {
        error = caught;
      }
      telemetry.invoiceAnnounced({ invoiceId: invoice.id, tenantId: invoice.tenant_id, attempt, error });
      if (signal.aborted) return;
    }
    if (taken.length < BATCH) return;
  }
}

function eventOf(invoice: Invoice, source: string): { body: string; headers: Record<string, string> } {
  const id = publicId("invoice", invoice.id);
  const event = new CloudEvent({
    id,
    source,
    type: "io.aau.invoice.closed",
    subject: id,
    time: invoice.closed_at,
    datacontenttype: "application/json",
    data: { tenant_id: publicId("tenant", invoice.tenant_id), ...invoiceView(invoice) },
  });
  const { body, headers } = HTTP.structured(event);
  return { body: String(body), headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])) };
}
