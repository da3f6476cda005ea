/** The three ways in which an invoice can be had. */
import * as v from "valibot";
import { invoiceCsv } from "./invoice-csv.ts";
import { INVOICE_PAGE_POLICY, invoicePage } from "./invoice-page.ts";
import type { InvoicePreview, InvoiceView } from "./invoices.ts";

export const InvoiceFormat = v.pipe(
  v.picklist(["json", "html", "csv"]),
  v.description("`html` is a page to print, `csv` its lines for a spreadsheet. Without it the `Accept` header decides, and JSON where that does not."),
);
type Format = v.InferOutput<typeof InvoiceFormat>;

/** The first of the media types in `Accept` that there is. */
function formatOf(asked: Format | undefined, accept: string | undefined): Format {
  if (asked) return asked;
  const first = /\b(application\/json|text\/html|text\/csv)\b/.exec(accept ?? "")?.[1];
  return first === "text/html" ? "html" : first === "text/csv" ? "csv" : "json";
}

/** What goes out: a body as JSON, or raw text with its headers. */
export async function inFormat(invoice: InvoiceView | InvoicePreview, asked: Format | undefined, accept: string | undefined) {
  const vary = { vary: "accept" };
  switch (formatOf(asked, accept)) {
    case "html":
      return {
        status: 200,
        raw: await invoicePage(invoice),
        headers: { ...vary, "content-type": "text/html; charset=utf-8", "content-security-policy": INVOICE_PAGE_POLICY, "referrer-policy": "no-referrer" },
      };
    case "csv": {
      const name = `invoice-${invoice.period_start.slice(0, 7)}.csv`;
      return {
        status: 200,
        raw: invoiceCsv(invoice),
        headers: { ...vary, "content-type": "text/csv; charset=utf-8; header=present", "content-disposition": `attachment; filename="${name}"` },
      };
    }
    case "json":
      return { status: 200, body: invoice, headers: vary };
  }
}
