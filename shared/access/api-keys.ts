/** Statements on a tenant's API keys. */

import { sql } from "kysely";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { type KeyId, newId, publicId, type TenantId, type UserId } from "../ids.ts";
import { type MintedKey, mintApiKey } from "./api-key.ts";
import { type AuditActor, recordAudit } from "./audit-log.ts";
import { type Caller, Environment, Scope } from "./caller.ts";

const Row = v.object({
  id: v.string(),
  key_prefix: v.string(),
  environment: Environment,
  scopes: v.array(Scope),
  description: v.string(),
  user_id: v.nullable(v.string()),
  created_at: v.date(),
  last_used_at: v.nullable(v.date()),
  expires_at: v.nullable(v.date()),
  revoked_at: v.nullable(v.date()),
});
type KeyRow = v.InferOutput<typeof Row>;
const COLUMNS = ["id", "key_prefix", "environment", "scopes", "description", "user_id", "created_at", "last_used_at", "expires_at", "revoked_at"] as const;

const Time = v.pipe(v.string(), v.isoTimestamp());
export const ApiKeyView = v.strictObject({
  id: v.string(),
  prefix: v.string(),
  environment: Environment,
  scopes: v.array(Scope),
  description: v.string(),
  created_at: Time,
  last_used_at: v.nullable(Time),
  expires_at: v.nullable(Time),
  revoked_at: v.nullable(Time),
});
export const ApiKeyWithPlaintext = v.strictObject({ ...ApiKeyView.entries, key: v.string() });

export const RotatedApiKey = v.strictObject({ ...ApiKeyWithPlaintext.entries, old_key_works_until: Time });

export function apiKeyView(row: KeyRow): v.InferOutput<typeof ApiKeyView> {
  return {
    id: publicId("key", row.id),
    prefix: row.key_prefix,
    environment: row.environment,
    scopes: row.scopes,
    description: row.description,
    created_at: row.created_at.toISOString(),
    last_used_at: row.last_used_at?.toISOString() ?? null,
    expires_at: row.expires_at?.toISOString() ?? null,
    revoked_at: row.revoked_at?.toISOString() ?? null,
  };
}

export interface NewApiKey {
  userId: UserId | null;
  environment: Environment;
  scopes: readonly Scope[];
  description: string;
  expiresAt: Date | null;
}

export async function createApiKey(db: TenantDb, tenantId: TenantId, actor: AuditActor, key: NewApiKey): Promise<{ row: KeyRow; minted: MintedKey }> {
  const minted = mintApiKey(key.environment);
  return db.tenant(tenantId, async (tx) => {
    const row = await tx
      .insertInto("api_keys")
      .values({
        id: newId("key"),
        tenant_id: tenantId,
        user_id: key.userId,
        key_hash: minted.hash,
        key_prefix: minted.prefix,
        environment: key.environment,
        scopes: [...key.scopes],
        description: key.description,
        expires_at: key.expiresAt,
        revoked_at: null,
        rotated_to: null,
        last_used_at: null,
      })
      .returning(COLUMNS)
      .executeTakeFirstOrThrow();
    const made = { row: v.parse(Row, row), minted };
    await recordAudit(tx, tenantId, {
      actor,
      action: "key.created",
      targetType: "key",
      targetId: publicId("key", made.row.id),
      details: { environment: key.environment, scopes: key.scopes, user: key.userId && publicId("user", key.userId) },
    });
    return made;
  });
}

export async function listApiKeys(db: TenantDb, tenantId: TenantId, before: string | null, limit: number): Promise<KeyRow[]> {
  const rows = await db.tenant(tenantId, (tx) => {
    const query = tx.selectFrom("api_keys").select(COLUMNS).where("tenant_id", "=", tenantId);
    return (before === null ? query : query.where("id", "<", before))
      .orderBy("id", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(Row), rows);
}

/** Revokes; a key that is revoked already stays as it is. The hash is for the cache; null when the tenant has no such key. */
export async function revokeApiKey(db: TenantDb, tenantId: TenantId, actor: AuditActor, id: KeyId): Promise<{ hash: string } | null> {
  return db.tenant(tenantId, async (tx) => {
    const ofTenant = tx.selectFrom("api_keys").select("key_hash").where("tenant_id", "=", tenantId).where("id", "=", id);
    const revoked = await tx
      .updateTable("api_keys")
      .set({ revoked_at: sql<Date>`now()` })
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .where("revoked_at", "is", null)
      .returning("key_hash")
      .executeTakeFirst();
    if (revoked) await recordAudit(tx, tenantId, { actor, action: "key.revoked", targetType: "key", targetId: publicId("key", id) });
    const row = revoked ?? (await ofTenant.executeTakeFirst());
    return row ? { hash: row.key_hash } : null;
  });
}

/**
 * A new key with the old one's rights; the old one ends after the grace period, never later than it would have. Null: no such
 * key; `over`: it is revoked, expired, or was rotated before; `excess`: it may do what the caller may not.
 */
export async function rotateApiKey(
  db: TenantDb,
  tenantId: TenantId,
  id: KeyId,
  graceSec: number,
  own: Pick<Caller, "keyId" | "userId" | "scopes" | "environment">,
): Promise<{ row: KeyRow; minted: MintedKey; oldHash: string; oldKeyEnds: Date } | "over" | "excess" | null> {
  return db.tenant(tenantId, async (tx) => {
    const old = await tx
      .selectFrom("api_keys")
      .select([...COLUMNS, "key_hash", "rotated_to"])
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .forUpdate()
      .executeTakeFirst();
    if (!old) return null;
    const known = v.parse(Row, old);
    if (known.revoked_at || old.rotated_to || (known.expires_at && known.expires_at.getTime() <= Date.now())) return "over";
    if (!known.scopes.every((scope) => own.scopes.includes(scope))) return "excess";
    if (own.environment === "test" && known.environment === "live") return "excess";
    const minted = mintApiKey(known.environment);
    const row = await tx
      .insertInto("api_keys")
      .values({
        id: newId("key"),
        tenant_id: tenantId,
        user_id: known.user_id,
        key_hash: minted.hash,
        key_prefix: minted.prefix,
        environment: known.environment,
        scopes: known.scopes,
        description: known.description,
        expires_at: known.expires_at,
        revoked_at: null,
        rotated_to: null,
        last_used_at: null,
      })
      .returning(COLUMNS)
      .executeTakeFirstOrThrow();
    const next = v.parse(Row, row);
    const ended = await tx
      .updateTable("api_keys")
      .set({ rotated_to: next.id, expires_at: sql<Date>`least(expires_at, now() + ${graceSec} * interval '1 second')` })
      .where("id", "=", id)
      .where("tenant_id", "=", tenantId)
      .returning("expires_at")
      .executeTakeFirstOrThrow();
    await recordAudit(tx, tenantId, {
      actor: own,
      action: "key.rotated",
      targetType: "key",
      targetId: publicId("key", id),
      details: { successor: publicId("key", next.id), grace_seconds: graceSec },
    });
    return { row: next, minted, oldHash: old.key_hash, oldKeyEnds: ended.expires_at ?? new Date() };
  });
}
