import * as v from "valibot";
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

const Left = v.object({ tries: v.number(), tries_left: v.number() });

/** Executions that are free without a subscription; null where there is one, or the plugin cannot be tried. */
export async function findSandbox(db: TenantDb, tenantId: TenantId, plugin: string): Promise<{ tries: number; remaining: number } | null> {
  const [row] = await db.call("SELECT * FROM sandbox_left($1, $2)", [tenantId, plugin]);
  if (!row) return null;
  const { tries, tries_left: remaining } = v.parse(Left, row);
  return { tries, remaining };
}
