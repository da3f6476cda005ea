import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { asId, parseId } from "../../shared/ids.ts";
import { InvoiceSummary, listInvoices } from "../../shared/metering/invoices.ts";

/** The tenant's closed months, the latest first. */
export default http({
  name: "invoice-list",
  summary: "List invoices, the latest first.",
  route: "GET /v1/invoices",
  scope: "billing:read",
  needs: ["db", "cursors"],
  query: v.strictObject({
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "20",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ invoices: v.array(InvoiceSummary), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 3, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["invoices", caller.tenantId];
    const before = query.cursor === undefined ? null : asId("invoice", cursors.open(scope, query.cursor));
    const invoices = await listInvoices(db, caller.tenantId, before, query.limit);
    const page = invoices.slice(0, query.limit);
    const last = parseId("invoice", page.at(-1)?.invoice_id ?? "");
    return ok({ invoices: page, next_cursor: invoices.length > query.limit && last ? cursors.seal(scope, last) : null });
  },
});
