/** An invoice's lines as CSV (RFC 4180). Written here, since libraries that guard against formulas also quote the minus of a discount. */
import type { InvoicePreview, InvoiceView } from "./invoices.ts";

const COLUMNS = ["kind", "description", "plugin", "model", "origin", "quantity", "unit", "unit_price_usd", "amount_usd", "price_version"] as const;
const AMOUNT = /^-?\d+(\.\d+)?$/;

export function invoiceCsv({ lines }: Pick<InvoiceView | InvoicePreview, "lines">): string {
  const rows = lines.map((line) => COLUMNS.map((column) => cell(line[column])));
  return `${[COLUMNS, ...rows].map((row) => row.join(",")).join("\r\n")}\r\n`;
}

/** A spreadsheet takes text that begins like a formula for one; the apostrophe says that it is text. */
function cell(value: string | number | null): string {
  const text = String(value ?? "");
  const safe = /^[\s]*[=+\-@\t\r]/.test(text) && !AMOUNT.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
