import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { InvoiceFormat, inFormat } from "../../shared/metering/invoice-format.ts";
import { findInvoice, InvoiceView, invoiceView } from "../../shared/metering/invoices.ts";

/** One invoice with its lines, for programs, for people and for spreadsheets. It never changes. */
export default http({
  name: "invoice-detail",
  summary: "Read one invoice: as JSON, as a page to print, or as CSV.",
  route: "GET /v1/invoices/{invoice_id}",
  scope: "billing:read",
  needs: ["db"],
  params: v.object({ invoice_id: idParam("invoice") }),
  query: v.strictObject({ format: v.optional(InvoiceFormat) }),
  headers: { Accept: "`text/html` and `text/csv` ask for the other formats." },
  replies: { 200: InvoiceView },
  scale: { min: 0, max: 3, concurrency: 80 },

  async handle({ params, query, caller, request, db }) {
    const invoice = await findInvoice(db, caller.tenantId, params.invoice_id);
    if (!invoice) throw new Refusal("NOT_FOUND", { message: "There is no such invoice." });
    return inFormat(invoiceView(invoice), query.format, request.header("accept"));
  },
});
