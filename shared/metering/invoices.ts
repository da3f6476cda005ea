/** Invoices as they are read: closed ones as they were made, and the open month as it would be closed now. */
import * as v from "valibot";
import { PlanTier } from "../access/caller.ts";
import type { TenantDb } from "../db/database.ts";
import { type InvoiceId, publicId, type TenantId } from "../ids.ts";
import { formatUsd } from "../money.ts";
import { planPricesFor, planPricesJson } from "./plan-prices.ts";

const MicroUsd = v.pipe(
  v.string(),
  v.transform((text) => BigInt(text)),
);
const Tokens = v.strictObject({ input: v.number(), output: v.number(), cache_write: v.number(), cache_read: v.number() });
const LINE_KINDS = ["plan_fee", "plugin_fee", "bundle_discount", "executions", "overage", "volume", "model_usage"] as const;

const Line = v.object({
  kind: v.picklist(LINE_KINDS),
  plugin: v.nullable(v.string()),
  model: v.nullable(v.string()),
  origin: v.string(),
  description: v.string(),
  quantity: v.number(),
  unit: v.string(),
  unit_micro_usd: v.nullable(MicroUsd),
  amount_micro_usd: MicroUsd,
  price_version: v.string(),
  tokens: v.nullable(Tokens),
});

export const Invoice = v.object({
  id: v.string(),
  number: v.number(),
  tenant_id: v.string(),
  tenant_name: v.string(),
  plan_tier: PlanTier,
  period_start: v.string(),
  period_end: v.string(),
  price_version: v.string(),
  total_micro_usd: MicroUsd,
  closed_at: v.string(),
  lines: v.array(Line),
});
export type Invoice = v.InferOutput<typeof Invoice>;

const InvoiceLineView = v.strictObject({
  kind: v.picklist(LINE_KINDS),
  description: v.string(),
  plugin: v.nullable(v.string()),
  model: v.nullable(v.string()),
  /** The month in which the work was done: before the invoice's own for late usage. */
  origin: v.string(),
  quantity: v.number(),
  unit: v.string(),
  unit_price_usd: v.nullable(v.string()),
  amount_usd: v.string(),
  /** Of the list that the amount is made of. */
  price_version: v.string(),
  tokens: v.nullable(Tokens),
});

const Head = {
  tenant: v.string(),
  tier: PlanTier,
  period_start: v.string(),
  /** The last day of the month. */
  period_end: v.string(),
  currency: v.literal("USD"),
  total_usd: v.string(),
  /** What is to be paid: the total, rounded down to the cent. */
  due_usd: v.string(),
};

export const InvoiceSummary = v.strictObject({ invoice_id: v.string(), number: v.number(), ...Head, closed_at: v.string() });
export const InvoiceView = v.strictObject({ ...InvoiceSummary.entries, lines: v.array(InvoiceLineView) });
export type InvoiceView = v.InferOutput<typeof InvoiceView>;
export const InvoicePreview = v.strictObject({ ...Head, lines: v.array(InvoiceLineView) });
export type InvoicePreview = v.InferOutput<typeof InvoicePreview>;

function lineView(line: v.InferOutput<typeof Line>): v.InferOutput<typeof InvoiceLineView> {
  const { unit_micro_usd: each, amount_micro_usd: amount, ...rest } = line;
  return { ...rest, unit_price_usd: each === null ? null : formatUsd(each), amount_usd: formatUsd(amount) };
}

export function invoiceView(invoice: Invoice): InvoiceView {
  return { ...invoiceSummary(invoice), lines: invoice.lines.map(lineView) };
}

export function invoiceSummary(invoice: Omit<Invoice, "lines" | "tenant_id" | "price_version">): v.InferOutput<typeof InvoiceSummary> {
  return {
    invoice_id: publicId("invoice", invoice.id),
    number: invoice.number,
    tenant: invoice.tenant_name,
    tier: invoice.plan_tier,
    period_start: invoice.period_start,
    period_end: invoice.period_end,
    currency: "USD",
    ...totals(invoice.total_micro_usd),
    closed_at: invoice.closed_at,
  };
}

const totals = (microUsd: bigint) => ({ total_usd: formatUsd(microUsd), due_usd: formatUsd(microUsd - (microUsd % 10_000n)) });

const Read = v.object({ invoice: Invoice });

/** Null: this tenant has no such invoice. */
export async function findInvoice(db: TenantDb, tenantId: TenantId, id: InvoiceId): Promise<Invoice | null> {
  const [row] = await db.call("SELECT * FROM read_invoice($1, $2)", [tenantId, id]);
  return row ? v.parse(Read, row).invoice : null;
}

const Listed = v.object({ ...v.omit(Invoice, ["lines", "tenant_id", "price_version", "closed_at"]).entries, closed_at: v.date() });

/** The latest month first; one more than `limit` says that there is another page. */
export async function listInvoices(db: TenantDb, tenantId: TenantId, before: InvoiceId | null, limit: number): Promise<v.InferOutput<typeof InvoiceSummary>[]> {
  const rows = await db.tenant(tenantId, (tx) =>
    tx
      .selectFrom("invoices")
      .select(({ cast, ref }) => ["id", "number", "tenant_name", "plan_tier", "closed_at", cast<string>(ref("period_start"), "text").as("period_start")])
      .select(({ cast, ref }) => [cast<string>(ref("period_end"), "text").as("period_end"), "total_micro_usd"])
      .where("tenant_id", "=", tenantId)
      .$if(before !== null, (q) => q.where("id", "<", before))
      .orderBy("id", "desc")
      .limit(limit + 1)
      .execute(),
  );
  return v.parse(v.array(Listed), rows).map((row) => invoiceSummary({ ...row, closed_at: row.closed_at.toISOString() }));
}

const Preview = v.object({ tenant_name: v.string(), plan_tier: PlanTier, period_start: v.string(), period_end: v.string(), lines: v.array(Line) });

/** The open month, with subscriptions that stand now taken to stand until its end. */
export async function previewInvoice(db: TenantDb, tenantId: TenantId, now: Date): Promise<InvoicePreview> {
  const [row] = await db.call("SELECT * FROM preview_invoice($1, $2)", [tenantId, planPricesJson(planPricesFor(now.toISOString().slice(0, 10)))]);
  const { lines, ...preview } = v.parse(Preview, row);
  return {
    tenant: preview.tenant_name,
    tier: preview.plan_tier,
    period_start: preview.period_start,
    period_end: preview.period_end,
    currency: "USD",
    ...totals(lines.reduce((total, line) => total + line.amount_micro_usd, 0n)),
    lines: lines.map(lineView),
  };
}
