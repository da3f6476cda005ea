/** The lock that puts whoever changes a tenant's users, roles or keys in line, so that two who act at once see each other. */
import type { Tx } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

/**
 * Take it before any lock on a user or a key: the triggers that count the tenant's generation take it too, and whoever has the row of a user or
 * a key first would wait for somebody who waits for that row.
 */
export async function lockTenant(tx: Tx, tenantId: TenantId): Promise<void> {
  await tx.selectFrom("tenants").select("id").where("id", "=", tenantId).forNoKeyUpdate().execute();
}
