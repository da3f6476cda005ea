/** An invoice as a page to read, print and pay: complete in itself, one sheet of A4 or Letter as a rule. Every text goes through Hono's escaping template. */
import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import type { InvoicePreview, InvoiceView } from "./invoices.ts";

type Line = InvoiceView["lines"][number];

const PARTS: readonly { title: string; kinds: readonly Line["kind"][] }[] = [
  { title: "Plan and plugins", kinds: ["plan_fee", "plugin_fee", "bundle_discount"] },
  { title: "Executions", kinds: ["executions", "overage", "volume"] },
  { title: "Model usage", kinds: ["model_usage"] },
];

const STYLE = `
:root { --ink: #16191d; --soft: #616a75; --line: #dfe3e8; --accent: #2450c8; }
* { box-sizing: border-box; }
body { margin: 0; background: #eef0f3; color: var(--ink); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 52rem; margin: 2rem auto; padding: 3rem; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
header { display: flex; justify-content: space-between; gap: 2rem; align-items: flex-start; }
.from { font-weight: 650; font-size: 1.1rem; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; }
.number { text-align: right; }
.number p, .facts dt { margin: 0; color: var(--soft); }
.draft { display: inline-block; margin-top: .4rem; padding: .1rem .6rem; border: 1px solid var(--accent); border-radius: 4px; color: var(--accent); font-size: .85rem; }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; margin: 2.5rem 0 2rem; padding: 1rem 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.facts dt { font-size: .8rem; }
.facts dd { margin: 0; font-weight: 550; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th { padding: .4rem 0; font-size: .8rem; font-weight: 500; color: var(--soft); text-align: left; border-bottom: 1px solid var(--line); }
td { padding: .55rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
tbody th { padding-top: 1.4rem; font-weight: 650; color: var(--ink); border-bottom-color: var(--ink); }
.n { width: 9rem; padding-left: 1rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
small { display: block; color: var(--soft); }
tfoot td { border: 0; padding: .3rem 0; }
tfoot tr:first-child td { padding-top: 1.2rem; }
.due td { padding-top: .6rem; font-size: 1.25rem; font-weight: 700; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .8rem; }
@media (max-width: 40rem) { main { margin: 0; padding: 1.25rem; border: 0; } .facts { grid-template-columns: 1fr 1fr; } .n { width: auto; } header { flex-direction: column; } .number { text-align: left; } }
@media print { body { background: #fff; } main { margin: 0; padding: 0; border: 0; max-width: none; } tr { break-inside: avoid; } thead { display: table-header-group; } tfoot { display: table-row-group; } }
@page { margin: 18mm; }
`;

export const INVOICE_PAGE_POLICY = `default-src 'none'; style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

/** A month that is still open has no number, and nothing of it is due. */
export async function invoicePage(invoice: InvoiceView | InvoicePreview): Promise<string> {
  const closed = "invoice_id" in invoice ? invoice : null;
  const title = closed ? `Invoice ${invoiceNumber(closed.number)}` : "Invoice preview";
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}, ${monthOf(invoice.period_start)}, ${invoice.tenant}</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<main>
<header>
<div class="from">AI Agents Universe</div>
<div class="number"><h1>${closed ? "Invoice" : "Preview"}</h1>
${closed ? html`<p>${invoiceNumber(closed.number)}</p>` : html`<span class="draft">This month is open; the amounts grow</span>`}</div>
</header>
<dl class="facts">
<div><dt>Billed to</dt><dd>${invoice.tenant}</dd></div>
<div><dt>Plan</dt><dd>${capital(invoice.tier)}</dd></div>
<div><dt>Period</dt><dd>1 – ${dayOf(invoice.period_end)}</dd></div>
<div><dt>Issued</dt><dd>${closed ? dayOf(closed.closed_at) : "Not yet"}</dd></div>
</dl>
<table>
<thead><tr><th scope="col">Description</th><th scope="col" class="n">Quantity</th><th scope="col" class="n">Unit price</th><th scope="col" class="n">Amount</th></tr></thead>
${PARTS.map(({ title: part, kinds }) =>
  partOf(
    part,
    invoice.lines.filter(({ kind }) => kinds.includes(kind)),
  ),
)}
<tfoot>
<tr><td colspan="3">Total, to the millionth of a dollar</td><td class="n">${exact(invoice.total_usd)}</td></tr>
<tr class="due"><td colspan="3">${closed ? "Amount due" : "So far"}</td><td class="n">${exact(invoice.due_usd)}</td></tr>
</tfoot>
</table>
<footer>${closed ? html`Invoice id ${closed.invoice_id}. ` : ""}All amounts in US dollars. The amount due is the total rounded down to the cent. Days and months are in UTC. Model usage is what the
provider counted, at the prices of the list that is named; work that failed, was stopped or only tried is not billed.</footer>
</main>
</body>
</html>
`;
  return String(await page);
}

function partOf(title: string, lines: readonly Line[]) {
  if (lines.length === 0) return "";
  return html`<tbody><tr><th scope="colgroup" colspan="4">${title}</th></tr>
${lines.map(
  (line) =>
    html`<tr><td>${line.description}${noteOf(line)}</td><td class="n">${whole(line.quantity)} ${line.unit}${line.quantity === 1 ? "" : "s"}</td><td class="n">${line.unit_price_usd === null ? "" : exact(line.unit_price_usd)}</td><td class="n">${exact(line.amount_usd)}</td></tr>`,
)}
</tbody>`;
}

function noteOf({ tokens, price_version }: Line) {
  if (!tokens) return "";
  const { input, output, cache_write, cache_read } = tokens;
  const cached = cache_write + cache_read === 0 ? "" : `, ${whole(cache_write)} written to and ${whole(cache_read)} read from the cache`;
  return html`<small>${whole(input)} in, ${whole(output)} out${cached}; prices of ${price_version}</small>`;
}

const invoiceNumber = (number: number): string => `No. ${String(number).padStart(4, "0")}`;
const capital = (word: string): string => `${word.charAt(0).toUpperCase()}${word.slice(1)}`;
const whole = (count: number): string => count.toLocaleString("en-US");
const dayOf = (day: string): string => new Date(day).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
const monthOf = (day: string): string => new Date(day).toLocaleDateString("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

/** `-1234.500000` as −$1,234.50: at least cents, and what is below a cent where there is any. */
function exact(amount: string): string {
  const [dollars = "0", fraction = ""] = amount.replace("-", "").split(".");
  return `${amount.startsWith("-") ? "−" : ""}$${BigInt(dollars).toLocaleString("en-US")}.${/^\d\d0*$/.test(fraction) ? fraction.slice(0, 2) : fraction}`;
}
