/** Tenants' secrets: encrypted by pgcrypto, read only for one execution, never cached. The key travels as a parameter, never in SQL text. */
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

export interface TenantSecrets {
  put(db: TenantDb, tenantId: TenantId, plugin: string, name: string, value: string): Promise<void>;
  /** The named secrets that the tenant has set for this plugin. */
  reveal(db: TenantDb, tenantId: TenantId, plugin: string, names: readonly string[]): Promise<Record<string, string>>;
}

const KEY_ID = "k1";

export function openTenantSecrets(key: string): TenantSecrets {
  return {
    async put(db, tenantId, plugin, name, value) {
      await db.call("SELECT put_tenant_secret($1, $2, $3, $4, $5, $6)", [tenantId, plugin, name, value, key, KEY_ID]);
    },
    async reveal(db, tenantId, plugin, names) {
      const rows = await db.call<{ name: string; value: string }>("SELECT name, value FROM reveal_tenant_secrets($1, $2, $3, $4)", [tenantId, plugin, names, key]);
      return Object.fromEntries(rows.map((row) => [row.name, row.value]));
    },
  };
}
