/** Closing months: one transaction for each tenant and month, in which the database decides by itself whether it is still to be done. */
import { sql } from "kysely";
import * as v from "valibot";
import { recordAudit } from "../access/audit-log.ts";
import { type PlatformDb, sqlState } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { asId, newId, publicId } from "../ids.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { planPricesFor, planPricesJson } from "./plan-prices.ts";

/** After the month's end, for what was settled just before it and is committed just after. */
const GRACE = "1 hour";
const BATCH = 200;
/** What close_month raises when its sums do not agree with the events. */
const SUMS_DISAGREE = "AAU02";

const Closed = v.object({ outcome: v.picklist(["closed", "empty", "known", "out_of_order"]), invoice: v.nullable(v.string()), total_micro_usd: v.nullable(v.string()) });
export type Closed = v.InferOutput<typeof Closed>;

/** `month` is its first day, as YYYY-MM-DD. Null: there is no such tenant. */
export async function closeMonth(db: PlatformDb, tenantId: string, month: string): Promise<Closed | null> {
  const id = newId("invoice");
  const targetId = publicId("invoice", id);
  const prices = planPricesJson(planPricesFor(month));
  const closed = await db.platform(async (tx) => {
    const { rows } = await sql`SELECT * FROM close_month(${tenantId}, ${month}::date, ${prices}::jsonb, ${id}, ${targetId})`.execute(tx);
    const [row] = v.parse(v.array(Closed), rows);
    if (row?.outcome === "closed")
      await recordAudit(tx, asId("tenant", tenantId), { actor: "platform:billing-aggregate", action: "invoice.closed", targetType: "invoice", targetId, details: { month } });
    FAILPOINT: await failpoint("billing.before_commit");
    return row ?? null;
  });
  FAILPOINT: await failpoint("billing.after_commit");
  return closed;
}

const Due = v.array(v.object({ tenant_id: v.string(), month: v.string() }));

/** Closes all that is over. A tenant whose month cannot be closed is told of and left to the next run; the others go on. Says how many invoices were made. */
export async function closeMonths(db: PlatformDb, telemetry: Pick<Telemetry, "monthClosed" | "monthNotClosed">, signal: AbortSignal): Promise<number> {
  const failed = new Set<string>();
  let count = 0;
  while (!signal.aborted) {
    const due = v.parse(Due, await db.call("SELECT * FROM months_to_close($1::interval, $2, $3)", [GRACE, [...failed], BATCH]));
    if (due.length === 0) break;
    for (const { tenant_id: tenantId, month } of due) {
      if (signal.aborted) break;
      try {
        const closed = await closeMonth(db, tenantId, month);
        if (closed?.outcome === "closed") count += 1;
        if (closed) telemetry.monthClosed({ tenantId, month, outcome: closed.outcome });
      } catch (error) {
        failed.add(tenantId);
        telemetry.monthNotClosed({ tenantId, month, reason: sqlState(error) === SUMS_DISAGREE ? "sums_disagree" : "error", error });
      }
    }
  }
  return count;
}
