import * as v from "valibot";
import { http } from "../../shared/host/declare.ts";
import { InvoiceFormat, inFormat } from "../../shared/metering/invoice-format.ts";
import { InvoicePreview, previewInvoice } from "../../shared/metering/invoices.ts";

/** The open month, made by the same statement that will close it. */
export default http({
  name: "invoice-preview",
  summary: "Read what the open month comes to so far: as JSON, as a page, or as CSV.",
  route: "GET /v1/invoices/preview",
  scope: "billing:read",
  needs: ["db", "clock"],
  query: v.strictObject({ format: v.optional(InvoiceFormat) }),
  headers: { Accept: "`text/html` and `text/csv` ask for the other formats." },
  replies: { 200: InvoicePreview },
  scale: { min: 0, max: 3, concurrency: 80 },

  async handle({ query, caller, request, db, clock }) {
    return inFormat(await previewInvoice(db, caller.tenantId, clock()), query.format, request.header("accept"));
  },
});
