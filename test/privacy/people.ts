/** People of a tenant, beside the one that every test tenant has. */
import { randomUUID } from "node:crypto";
import type { PlatformDb } from "../../shared/db/database.ts";
import { newId, type TenantId, type UserId } from "../../shared/ids.ts";

export async function newUser(db: PlatformDb, tenantId: TenantId, email = `${randomUUID()}@people.example`, role = "developer"): Promise<UserId> {
  const id = newId("user");
  await db.platform((tx) => tx.insertInto("users").values({ id, tenant_id: tenantId, email, role }).execute());
  return id;
}
