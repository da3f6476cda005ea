/** Subscriptions: which plugins a tenant runs, and within what quota. A change holds from the next admission on, since that reads these rows. */
import { sql } from "kysely";
import * as v from "valibot";
import { type AuditActor, recordAudit } from "../access/audit-log.ts";
import { type Caller, PlanTier } from "../access/caller.ts";
import type { TenantDb, Tx } from "../db/database.ts";
import { newId, publicId, type SubscriptionId, type TenantId } from "../ids.ts";
import { planOf, planPricesFor, planPricesJson } from "./plan-prices.ts";

const Time = v.pipe(v.string(), v.isoTimestamp());

export const SubscriptionView = v.strictObject({
  subscription_id: v.string(),
  plugin: v.string(),
  tier: PlanTier,
  status: v.picklist(["active", "ended"]),
  started_at: Time,
  ended_at: v.nullable(Time),
  /** Of the current month; null when the subscription has ended. `limit` null: there is none. */
  quota: v.nullable(
    v.strictObject({
      limit: v.nullable(v.number()),
      used: v.number(),
      reserved: v.number(),
      remaining: v.nullable(v.number()),
      overage_enabled: v.boolean(),
    }),
  ),
});

const Row = v.object({
  id: v.string(),
  plugin: v.string(),
  tier: PlanTier,
  quota_limit: v.nullable(v.number()),
  overage_enabled: v.boolean(),
  started_at: v.date(),
  ended_at: v.nullable(v.date()),
  used: v.nullable(v.number()),
  reserved: v.nullable(v.number()),
});
type Row = v.InferOutput<typeof Row>;

export function subscriptionView(row: Row): v.InferOutput<typeof SubscriptionView> {
  const { quota_limit: limit, used, reserved } = { ...row, used: row.used ?? 0, reserved: row.reserved ?? 0 };
  return {
    subscription_id: publicId("subscription", row.id),
    plugin: row.plugin,
    tier: row.tier,
    status: row.ended_at ? "ended" : "active",
    started_at: row.started_at.toISOString(),
    ended_at: row.ended_at?.toISOString() ?? null,
    quota: row.ended_at ? null : { limit, used, reserved, remaining: limit === null ? null : Math.max(0, limit - used - reserved), overage_enabled: row.overage_enabled },
  };
}

function selectSubscriptions(tx: Tx, tenantId: TenantId) {
  return tx
    .selectFrom("subscriptions as s")
    .innerJoin("plugins as p", "p.id", "s.plugin_id")
    .leftJoin("usage_periods as u", (join) =>
      join
        .on("u.tenant_id", "=", tenantId)
        .onRef("u.plugin_name", "=", "p.name")
        .on("u.environment", "=", "live")
        .on("u.period_start", "=", sql<string>`date_trunc('month', now() AT TIME ZONE 'UTC')::date`),
    )
    .select(["s.id", "p.name as plugin", "s.tier", "s.quota_limit", "s.overage_enabled", "s.started_at", "s.ended_at", "u.used", "u.reserved"])
    .where("s.tenant_id", "=", tenantId);
}

/** Newest first; one more than `limit` says that there is another page. */
export async function listSubscriptions(
  db: TenantDb,
  tenantId: TenantId,
  { status, plugin }: { status?: "active" | "ended"; plugin?: string },
  before: SubscriptionId | null,
  limit: number,
): Promise<Row[]> {
  const rows = await db.tenant(tenantId, (tx) =>
    selectSubscriptions(tx, tenantId)
      .$if(status !== undefined, (q) => q.where("s.ended_at", status === "active" ? "is" : "is not", null))
      .$if(plugin !== undefined, (q) => q.where("p.name", "=", plugin ?? ""))
      .$if(before !== null, (q) => q.where("s.id", "<", before))
      .orderBy("s.id", "desc")
      .limit(limit + 1)
      .execute(),
  );
  return v.parse(v.array(Row), rows);
}

const REFUSED = ["unknown", "deprecated", "already", "not_included", "no_overage", "limit_reached"] as const;
const Outcome = v.object({
  outcome: v.picklist(["subscribed", ...REFUSED]),
  subscription: v.nullable(v.string()),
  tier: PlanTier,
  plugins_included: v.nullable(v.number()),
});

export type Subscribed = { outcome: "subscribed"; row: Row } | (Omit<v.InferOutput<typeof Outcome>, "outcome"> & { outcome: (typeof REFUSED)[number] });

type Owner = Pick<Caller, "tenantId" | "keyId" | "userId">;

export async function subscribe(db: TenantDb, owner: Owner, plugin: string, overage: boolean): Promise<Subscribed> {
  const { tenantId } = owner;
  const id = newId("subscription");
  const plans = planPricesJson(planPricesFor(new Date().toISOString().slice(0, 10)));
  return db.tenant(tenantId, async (tx) => {
    const { rows } = await sql`SELECT * FROM subscribe(${tenantId}, ${id}, ${plugin}, ${overage}, ${plans}::jsonb -> 'plans')`.execute(tx);
    const found = v.parse(Outcome, rows[0]);
    const { outcome } = found;
    if (outcome !== "subscribed") return { ...found, outcome };
    const row = v.parse(Row, await selectSubscriptions(tx, tenantId).where("s.id", "=", id).executeTakeFirst());
    const target = { targetType: "subscription", targetId: publicId("subscription", id) };
    await recordAudit(tx, tenantId, { actor: owner, action: "subscription.created", ...target, details: { plugin, tier: found.tier, overage } });
    return { outcome, row };
  });
}

/** Ends it at once; tasks that were admitted go on. Ending it again changes nothing. False: the tenant has no such subscription. */
export async function endSubscription(db: TenantDb, owner: Owner, id: SubscriptionId): Promise<boolean> {
  const { tenantId } = owner;
  return db.tenant(tenantId, async (tx) => {
    const ended = await tx
      .updateTable("subscriptions")
      .set({ ended_at: sql<Date>`now()` })
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .where("ended_at", "is", null)
      .returning("id")
      .executeTakeFirst();
    if (ended) {
      await recordAudit(tx, tenantId, { actor: owner, action: "subscription.ended", targetType: "subscription", targetId: publicId("subscription", id) });
      return true;
    }
    return (await tx.selectFrom("subscriptions").select("id").where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst()) !== undefined;
  });
}

export type Moved =
  | { outcome: "moved"; plugins: string[] }
  /** The tenant has more than the tier includes, or plugins of its own that the tier does not have: `names` are those, each with its subscription. */
  | { outcome: "too_many" | "own_plugins"; names: string[]; included: number | null };

/**
 * Ends every subscription of the tenant and opens it again as the new tier has it. What was used of a month's quota counts on, since it is counted by
 * plugin and month. Whoever is refused has to roll the transaction back; the caller holds the tenant's row, as `subscribe` does.
 */
export async function moveSubscriptions(tx: Tx, tenantId: TenantId, tier: PlanTier, actor: AuditActor): Promise<Moved> {
  const plan = planOf(tier);
  // Not the transaction's own time: what somebody subscribed to while the lock was awaited began after that.
  const at = sql<Date>`statement_timestamp()`;
  const ended = await tx
    .updateTable("subscriptions as s")
    .from("plugins as p")
    .set({ ended_at: at })
    .whereRef("p.id", "=", "s.plugin_id")
    .where("s.tenant_id", "=", tenantId)
    .where("s.ended_at", "is", null)
    .returning(["s.id", "s.plugin_id", "s.overage_enabled", "p.name", "p.owner_tenant_id"])
    .execute();
  ended.sort((a, b) => a.name.localeCompare(b.name));
  const named = (some: typeof ended) => some.map(({ id, name }) => `${name} (${publicId("subscription", id)})`);
  const own = ended.filter((one) => one.owner_tenant_id !== null);
  if (own.length > 0 && !plan.mayOwnPlugins) return { outcome: "own_plugins", names: named(own), included: plan.plugins };
  if (plan.plugins !== null && ended.length > plan.plugins) return { outcome: "too_many", names: named(ended), included: plan.plugins };

  for (const { id, plugin_id, overage_enabled, name } of ended) {
    const next = newId("subscription");
    const overage = overage_enabled && plan.overage !== null;
    await sql`INSERT INTO subscriptions (id, tenant_id, plugin_id, tier, quota_limit, overage_enabled, started_at)
      VALUES (${next}, ${tenantId}, ${plugin_id}, ${tier}, ${plan.quota}, ${overage}, ${at})`.execute(tx);
    const of = (subscription: string) => ({ actor, targetType: "subscription", targetId: publicId("subscription", subscription) });
    await recordAudit(tx, tenantId, { ...of(id), action: "subscription.ended", details: { plugin: name } });
    await recordAudit(tx, tenantId, { ...of(next), action: "subscription.created", details: { plugin: name, tier, overage } });
  }
  return { outcome: "moved", plugins: ended.map(({ name }) => name) };
}
