/** Statements on a tenant's API keys. */

import { sql } from "kysely";
import * as v from "valibot";
import type { PlatformDb, TenantDb, Tx } from "../db/database.ts";
import { asId, type KeyId, newId, publicId, type TenantId, type UserId } from "../ids.ts";
import { type MintedKey, mintApiKey } from "./api-key.ts";
import { recordAudit } from "./audit-log.ts";
import { type Caller, Environment, Scope } from "./caller.ts";
import { readGeneration } from "./key-cache.ts";
import { mayActOn, Role, scopesOf } from "./roles.ts";
import { lockTenant } from "./tenant-lock.ts";

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
  user_id: v.nullable(v.pipe(v.string(), v.description("The user whose role bounds the key; null for a service account."))),
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
    user_id: row.user_id && publicId("user", row.user_id),
    description: row.description,
    created_at: row.created_at.toISOString(),
    last_used_at: row.last_used_at?.toISOString() ?? null,
    expires_at: row.expires_at?.toISOString() ?? null,
    revoked_at: row.revoked_at?.toISOString() ?? null,
  };
}

export interface NewApiKey {
  /** Null for a service account. */
  userId: UserId | null;
  environment: Environment;
  scopes: readonly Scope[];
  description: string;
  /** Null: as long as the caller's own key. */
  expiresAt: Date | null;
}

/** Why no key was made. `over`: the caller's own key is no longer good. `outlives`: it would be good for longer than the caller's. */
export type NotMinted = { why: "over" } | { why: "no_user" } | { why: "owners_only" } | { why: "outlives"; ends: Date } | { why: "beyond_role"; role: Role; excess: Scope[] };

interface Minted {
  row: KeyRow;
  minted: MintedKey;
}

/** Makes a key that can do no more, and lives no longer, than the caller's; and no more than the role of its user allows. */
export async function createApiKey(db: TenantDb, caller: Caller, key: NewApiKey): Promise<Minted | NotMinted> {
  const { tenantId } = caller;
  return db.tenant(tenantId, async (tx) => {
    const own = await findOwn(tx, caller);
    if (!own) return { why: "over" } as const;
    if (own.expiresAt && key.expiresAt && key.expiresAt > own.expiresAt) return { why: "outlives", ends: own.expiresAt } as const;
    if (key.userId !== null) {
      const role = key.userId === caller.userId ? own.role : await findRole(tx, tenantId, key.userId);
      if (role === null) return { why: "no_user" } as const;
      if (!mayActOn(own.role, role)) return { why: "owners_only" } as const;
      const excess = key.scopes.filter((scope) => !scopesOf(role).includes(scope));
      if (excess.length > 0) return { why: "beyond_role", role, excess } as const;
    }
    const made = await insertKey(tx, tenantId, { ...key, expiresAt: key.expiresAt ?? own.expiresAt });
    await recordAudit(tx, tenantId, {
      actor: caller,
      action: "key.created",
      targetType: "key",
      targetId: publicId("key", made.row.id),
      details: { environment: key.environment, scopes: key.scopes, user: key.userId && publicId("user", key.userId) },
    });
    return made;
  });
}

async function insertKey(tx: Tx, tenantId: TenantId, key: NewApiKey): Promise<Minted> {
  const minted = mintApiKey(key.environment);
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
  return { row: v.parse(Row, row), minted };
}

/** The caller's key and role as they are now, held until the transaction ends: a key that is being revoked makes no other. */
export async function findOwn(tx: Tx, { tenantId, keyId, userId }: Pick<Caller, "tenantId" | "keyId" | "userId">): Promise<{ expiresAt: Date | null; role: Role | null } | null> {
  const own = await tx
    .selectFrom("api_keys")
    .select("expires_at")
    .where("tenant_id", "=", tenantId)
    .where("id", "=", keyId)
    .where("revoked_at", "is", null)
    .where((is) => is.or([is("expires_at", "is", null), is("expires_at", ">", sql<Date>`now()`)]))
    .forShare()
    .executeTakeFirst();
  if (!own) return null;
  const role = userId === null ? null : await findRole(tx, tenantId, userId);
  return userId !== null && role === null ? null : { expiresAt: own.expires_at, role };
}

async function findRole(tx: Tx, tenantId: TenantId, userId: UserId): Promise<Role | null> {
  const user = await tx.selectFrom("users").select("role").where("tenant_id", "=", tenantId).where("id", "=", userId).forShare().executeTakeFirst();
  return user ? v.parse(Role, user.role) : null;
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

export interface EndedKey {
  /** The tenant's generation from now on, for the caches. */
  generation: string;
}

/** Revokes; a key that is revoked already stays as it is. Null when the tenant has no such key; `over`: the caller's own key is no longer good; `live`: a test key ends only test keys. */
export async function revokeApiKey(db: TenantDb, tenantId: TenantId, actor: Caller | "operator", id: KeyId): Promise<EndedKey | "over" | "owners_only" | "live" | null> {
  return db.tenant(tenantId, async (tx) => {
    await lockTenant(tx, tenantId);
    const key = await tx
      .selectFrom("api_keys")
      .select(["revoked_at", "user_id", "environment"])
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .forUpdate()
      .executeTakeFirst();
    if (!key) return null;
    // Every key may end itself, a second time too.
    if (actor !== "operator" && id !== actor.keyId) {
      const own = await findOwn(tx, actor);
      if (!own) return "over";
      if (actor.environment === "test" && key.environment === "live") return "live";
      const role = key.user_id === null ? null : await findRole(tx, tenantId, asId("user", key.user_id));
      if (!mayActOn(own.role, role)) return "owners_only";
    }
    if (key.revoked_at === null) {
      await tx.updateTable("api_keys").set({ revoked_at: sql<Date>`now()` }).where("tenant_id", "=", tenantId).where("id", "=", id).execute();
      await recordAudit(tx, tenantId, { actor, action: "key.revoked", targetType: "key", targetId: publicId("key", id) });
    }
    return { generation: await readGeneration(tx, tenantId) };
  });
}

/**
 * A new key with the old one's rights; the old one ends after the grace period, never later than it would have. Null: no such
 * key; `over`: it is revoked, expired, or was rotated before; `excess`: it may do what the caller may not, or for longer.
 */
export async function rotateApiKey(db: TenantDb, caller: Caller, id: KeyId, graceSec: number): Promise<(Minted & EndedKey & { oldKeyEnds: Date }) | "over" | "excess" | null> {
  const { tenantId } = caller;
  return db.tenant(tenantId, async (tx) => {
    await lockTenant(tx, tenantId);
    const old = await tx
      .selectFrom("api_keys")
      .select([...COLUMNS, "rotated_to"])
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .forUpdate()
      .executeTakeFirst();
    if (!old) return null;
    const known = v.parse(Row, old);
    if (known.revoked_at || old.rotated_to || (known.expires_at && known.expires_at.getTime() <= Date.now())) return "over";
    const own = await findOwn(tx, caller);
    if (!own) return "over";
    const userId = known.user_id === null ? null : asId("user", known.user_id);
    const role = userId && (await findRole(tx, tenantId, userId));
    const lasting = (at: Date | null) => at?.getTime() ?? Number.POSITIVE_INFINITY;
    if (!known.scopes.every((scope) => caller.scopes.includes(scope) || (role !== null && !scopesOf(role).includes(scope)))) return "excess";
    if (caller.environment === "test" && known.environment === "live") return "excess";
    if (id !== caller.keyId && (lasting(known.expires_at) > lasting(own.expiresAt) || !mayActOn(own.role, role))) return "excess";
    // What the role does not allow is not handed on: the next role may allow it, and would give it back unasked.
    const scopes = known.scopes.filter((scope) => role === null || scopesOf(role).includes(scope));
    const { row, minted } = await insertKey(tx, tenantId, { userId, environment: known.environment, scopes, description: known.description, expiresAt: known.expires_at });
    const ended = await tx
      .updateTable("api_keys")
      .set({ rotated_to: row.id, expires_at: sql<Date>`least(expires_at, now() + ${graceSec} * interval '1 second')` })
      .where("id", "=", id)
      .where("tenant_id", "=", tenantId)
      .returning("expires_at")
      .executeTakeFirstOrThrow();
    await recordAudit(tx, tenantId, {
      actor: caller,
      action: "key.rotated",
      targetType: "key",
      targetId: publicId("key", id),
      details: { successor: publicId("key", row.id), grace_seconds: graceSec },
    });
    return { row, minted, generation: await readGeneration(tx, tenantId), oldKeyEnds: ended.expires_at ?? new Date() };
  });
}

/** Long enough for whoever asks which key it was. */
const KEPT_DAYS = 90;
const PURGE_BATCH = 500;

/** Deletes keys that were revoked or ran out 90 days ago; says how many. */
export async function purgeEndedKeys(db: PlatformDb, signal: AbortSignal): Promise<number> {
  let total = 0;
  while (!signal.aborted) {
    const [row] = await db.call<{ count: number }>("SELECT purge_ended_keys($1, $2) AS count", [KEPT_DAYS, PURGE_BATCH]);
    total += row?.count ?? 0;
    if ((row?.count ?? 0) < PURGE_BATCH) break;
  }
  return total;
}
