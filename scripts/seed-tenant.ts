/** Makes a tenant with an owner, a key and subscriptions; what is there already stays. */
import { sql } from "kysely";
import { mintApiKey } from "../shared/access/api-key.ts";
import { type Environment, type PlanTier, SCOPES, type Scope } from "../shared/access/caller.ts";
import type { PlatformDb } from "../shared/db/database.ts";
import { asId, newId, type TenantId, type UserId } from "../shared/ids.ts";

export interface SeededTenant {
  tenantId: TenantId;
  userId: UserId;
}

export interface TenantSeed {
  name: string;
  tier: PlanTier;
  settings?: Record<string, unknown>;
  /** Plugin names with the executions per month that the subscription includes; null for no limit. */
  subscriptions: Readonly<Record<string, number | null>>;
}

/** Idempotent by the tenant's name. */
export async function seedTenant(db: PlatformDb, seed: TenantSeed): Promise<SeededTenant> {
  return db.platform(async (tx) => {
    const known = await tx.selectFrom("tenants").select("id").where("name", "=", seed.name).executeTakeFirst();
    const tenantId = known ? asId("tenant", known.id) : newId("tenant");
    if (!known)
      await tx
        .insertInto("tenants")
        .values({ id: tenantId, name: seed.name, plan_tier: seed.tier, settings: JSON.stringify(seed.settings ?? {}) })
        .execute();
    const email = `admin@${seed.name}.example`;
    const user = await tx.selectFrom("users").select("id").where("tenant_id", "=", tenantId).where("email", "=", email).executeTakeFirst();
    const userId = user ? asId("user", user.id) : newId("user");
    if (!user) await tx.insertInto("users").values({ id: userId, tenant_id: tenantId, email, role: "owner" }).execute();
    for (const [plugin, quota] of Object.entries(seed.subscriptions)) {
      await sql`INSERT INTO subscriptions (id, tenant_id, plugin_id, tier, quota_limit)
        SELECT ${newId("plugin")}, ${tenantId}, p.id, ${seed.tier}, ${quota} FROM plugins p WHERE p.name = ${plugin}
        ON CONFLICT (tenant_id, plugin_id) WHERE ended_at IS NULL DO NOTHING`.execute(tx);
    }
    return { tenantId, userId };
  });
}

export interface KeySeed {
  scopes?: readonly Scope[];
  environment?: Environment;
  userId?: UserId | null;
  expiresAt?: Date | null;
  description?: string;
}

/** A fresh key of the tenant; its text exists only in the answer. */
export async function seedKey(
  db: PlatformDb,
  tenantId: TenantId,
  { scopes = SCOPES, environment = "live", userId = null, expiresAt = null, description = "seed" }: KeySeed = {},
): Promise<{ id: string; key: string }> {
  const minted = mintApiKey(environment);
  const id = newId("key");
  await db.platform((tx) =>
    tx
      .insertInto("api_keys")
      .values({
        id,
        tenant_id: tenantId,
        user_id: userId,
        key_hash: minted.hash,
        key_prefix: minted.prefix,
        environment,
        scopes: [...scopes],
        description,
        expires_at: expiresAt,
        revoked_at: null,
        rotated_to: null,
        last_used_at: null,
      })
      .execute(),
  );
  return { id, key: minted.plaintext };
}
