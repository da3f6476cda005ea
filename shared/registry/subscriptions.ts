import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

/** Names of the plugins that the tenant is subscribed to now. */
export async function findSubscriptions(db: TenantDb, tenantId: TenantId): Promise<ReadonlySet<string>> {
  const rows = await db.tenant(tenantId, (tx) =>
    tx
      .selectFrom("subscriptions as s")
      .innerJoin("plugins as p", "p.id", "s.plugin_id")
      .select("p.name")
      .where("s.tenant_id", "=", tenantId)
      .where("s.ended_at", "is", null)
      .execute(),
  );
  return new Set(rows.map((row) => row.name));
}
