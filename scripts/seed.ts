/** The two tenants of the local platform, with freshly made keys. A second run keeps what still works. */
import { hashApiKey } from "../shared/access/api-key.ts";
import type { PlanTier } from "../shared/access/caller.ts";
import type { Database } from "../shared/db/database.ts";
import { publicId } from "../shared/ids.ts";
import { type Home, type Keys, readKeys, writePrivate } from "./local/home.ts";
import { seedKey, seedTenant } from "./seed-tenant.ts";

const QUOTA: Record<PlanTier, number | null> = { starter: 100, professional: 1_000, enterprise: null };
/** Plugins that a tier includes, by SPEC 7.1; the local tenants take the first of them. */
const INCLUDED: Record<PlanTier, number> = { starter: 1, professional: 5, enterprise: Number.POSITIVE_INFINITY };
const TENANTS: Record<string, PlanTier> = { "test-tenant-1": "professional", "test-tenant-2": "starter" };

/** Writes `keys.json` (mode 600); plugins must be registered before, since subscriptions point at them. */
export async function seed(db: Database, home: Home, plugins: readonly string[]): Promise<Keys> {
  const known = readKeys(home);
  const keys: Keys = {};
  for (const [name, tier] of Object.entries(TENANTS)) {
    const { tenantId, userId } = await seedTenant(db, { name, tier, subscriptions: Object.fromEntries(plugins.slice(0, INCLUDED[tier]).map((plugin) => [plugin, QUOTA[tier]])) });
    const old = known[name]?.admin_key;
    const admin_key = old && (await isValid(db, old)) ? old : (await seedKey(db, tenantId, { userId, description: "admin key of the local platform" })).key;
    keys[name] = { tenant_id: publicId("tenant", tenantId), user_id: publicId("user", userId), plan_tier: tier, admin_key };
  }
  writePrivate(home.path("keys.json"), keys);
  return keys;
}

async function isValid(db: Database, key: string): Promise<boolean> {
  const [row] = await db.call<{ revoked: boolean; expires_in_ms: string | null }>("SELECT revoked, expires_in_ms FROM authenticate_key($1)", [hashApiKey(key)]);
  return row !== undefined && !row.revoked && (row.expires_in_ms === null || Number(row.expires_in_ms) > 0);
}
