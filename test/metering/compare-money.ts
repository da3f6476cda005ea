/** Closes the month that a money run was in, twice at once, and holds what stands in the books against what was worked out beside. */
import * as v from "valibot";
import type { Database } from "../../shared/db/database.ts";
import { asId } from "../../shared/ids.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";
import { findInvoice } from "../../shared/metering/invoices.ts";
import { reportUsage } from "../../shared/metering/usage-report.ts";
import { type Expected, expectedTotal } from "./money-run.ts";

export interface Compared {
  tier: string;
  tasks: number;
  billable: number;
  overage: number;
  modelUsage: bigint;
  total: bigint;
  expected: bigint;
}

const Margin = v.object({ invoiced: v.string(), billed: v.string(), unbilled: v.string(), unknown: v.number() });
const Quota = v.object({
  plugin_name: v.string(),
  environment: v.string(),
  used: v.number(),
  reserved: v.number(),
  quota_limit: v.nullable(v.number()),
  overage_enabled: v.boolean(),
});

/** `problems` is empty when every sum is exact. */
export async function compareMoney(db: Database, tenants: readonly Expected[]): Promise<{ tenants: Compared[]; problems: string[] }> {
  const now = new Date();
  const month = `${now.toISOString().slice(0, 7)}-01`;
  const daysInMonth = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate();
  const daysLeft = daysInMonth - now.getUTCDate() + 1;
  const problems: string[] = [];
  const same = (what: string, is: unknown, must: unknown) => {
    if (String(is) !== String(must)) problems.push(`${what}: ${is}, and not ${must}`);
  };
  const compared: Compared[] = [];
  for (const [n, tenant] of tenants.entries()) {
    const who = `tenant ${n} (${tenant.tier})`;
    const outcomes = await Promise.all([1, 2, 3].map(() => closeMonth(db, tenant.tenantId, month)));
    same(`${who}, three closings at once`, outcomes.map((one) => one?.outcome).sort(), ["closed", "known", "known"]);
    const id = outcomes.find((one) => one?.outcome === "closed")?.invoice ?? "";
    const invoice = await findInvoice(db, tenant.tenantId, asId("invoice", id));
    const lines = invoice?.lines ?? [];
    const sumOf = (kind: string) => lines.filter((line) => line.kind === kind).reduce((sum, line) => sum + line.amount_micro_usd, 0n);
    const expected = expectedTotal(tenant, daysLeft, daysInMonth);
    const total = lines.reduce((sum, line) => sum + line.amount_micro_usd, 0n);
    const billable = [...tenant.plugins.values()].reduce((sum, plugin) => sum + plugin.billable, 0);
    same(`${who}, total and lines`, invoice?.total_micro_usd, total);
    same(`${who}, total`, total, expected);
    same(`${who}, model usage`, sumOf("model_usage"), tenant.modelUsage);

    const usage = await reportUsage(db, tenant.tenantId, { environment: "live", from: month, to: now.toISOString().slice(0, 10), by: ["plugin", "day", "key", "model"] });
    same(`${who}, usage`, usage.total.billable, billable);
    same(`${who}, usage in money`, usage.total.cost_usd.replace(".", "").replace(/^0+(?=\d)/, ""), tenant.modelUsage);
    const [raw] = await db.call(
      `SELECT sum(invoiced_micro_usd)::text AS invoiced, sum(billed_cost_micro_usd)::text AS billed, sum(unbilled_cost_micro_usd)::text AS unbilled, sum(unknown_calls)::int AS unknown
       FROM margin_by_month WHERE tenant_id = $1`,
      [tenant.tenantId],
    );
    const margin = v.parse(Margin, raw);
    same(`${who}, invoiced in the margin`, margin.invoiced, total);
    same(`${who}, billed work in the margin`, margin.billed, tenant.modelUsage);
    same(`${who}, unbilled work in the margin`, margin.unbilled, tenant.unbilled);
    same(`${who}, unknown calls in the margin`, margin.unknown, tenant.unknownCalls);

    const quotas = v.parse(v.array(Quota), await db.call("SELECT * FROM usage_periods WHERE tenant_id = $1", [tenant.tenantId]));
    for (const quota of quotas) {
      same(`${who}, reserved of ${quota.plugin_name}`, quota.reserved, 0);
      const isWithin = quota.quota_limit === null || quota.overage_enabled || quota.used <= quota.quota_limit;
      same(`${who}, ${quota.environment} quota of ${quota.plugin_name} kept`, isWithin, true);
      if (quota.environment === "live") same(`${who}, used of ${quota.plugin_name}`, quota.used, tenant.plugins.get(quota.plugin_name)?.billable);
    }
    compared.push({
      tier: tenant.tier,
      tasks: [...tenant.kinds.values()].reduce((sum, count) => sum + count, 0),
      billable,
      overage: lines.filter(({ kind }) => kind === "overage").reduce((sum, line) => sum + line.quantity, 0),
      modelUsage: tenant.modelUsage,
      total,
      expected,
    });
  }
  return { tenants: compared, problems };
}
