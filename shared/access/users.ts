/**
 * Statements on a tenant's users. Whoever changes users or roles holds the lock on the tenant's row, so that two who act at once see each
 * other: of two last owners who remove one another, one stays.
 */
import { sql } from "kysely";
import * as v from "valibot";
import type { TenantDb, Tx } from "../db/database.ts";
import { newId, publicId, type TenantId, type UserId } from "../ids.ts";
import { findOwn } from "./api-keys.ts";
import { recordAudit } from "./audit-log.ts";
import type { Caller, Scope } from "./caller.ts";
import { readGeneration } from "./key-cache.ts";
import { mayActOn, Role, scopesOf } from "./roles.ts";
import { lockTenant } from "./tenant-lock.ts";

const Row = v.object({ id: v.string(), email: v.string(), role: Role, created_at: v.date() });
export type UserRow = v.InferOutput<typeof Row>;
const COLUMNS = ["id", "email", "role", "created_at"] as const;

const Time = v.pipe(v.string(), v.isoTimestamp());
export const UserView = v.strictObject({ id: v.string(), email: v.string(), role: Role, created_at: Time });
/** An address as people write it; compared without case. */
export const Email = v.pipe(v.string(), v.trim(), v.maxLength(254, "must have at most 254 characters"), v.email("must be an e-mail address"));

export function userView({ id, email, role, created_at }: UserRow): v.InferOutput<typeof UserView> {
  return { id: publicId("user", id), email, role, created_at: created_at.toISOString() };
}

/** Why nothing was done. `over`: the caller's own key is no longer good. `beyond`: the role allows what the caller's key may not do. */
export type NotDone = { why: "over" } | { why: "owners_only" } | { why: "taken" } | { why: "last_owner" } | { why: "own_role" } | { why: "beyond"; role: Role; excess: Scope[] };

/** The role of whoever acts, once nobody else can change roles. */
async function begin(tx: Tx, caller: Caller): Promise<{ role: Role | null } | null> {
  await lockTenant(tx, caller.tenantId);
  return findOwn(tx, caller);
}

/** A caller gives only what its key has, and only an owner makes an owner. */
function refuseRole(role: Role, own: Role | null, caller: Caller): NotDone | null {
  if (!mayActOn(own, role)) return { why: "owners_only" };
  const excess = scopesOf(role).filter((scope) => !caller.scopes.includes(scope));
  return excess.length > 0 ? { why: "beyond", role, excess } : null;
}

export async function createUser(db: TenantDb, caller: Caller, { email, role }: { email: string; role: Role }): Promise<UserRow | NotDone> {
  const { tenantId } = caller;
  return db.tenant(tenantId, async (tx) => {
    const own = await begin(tx, caller);
    if (!own) return { why: "over" } as const;
    const refusal = refuseRole(role, own.role, caller);
    if (refusal) return refusal;
    if (await isTaken(tx, tenantId, email, null)) return { why: "taken" } as const;
    const row = await tx
      .insertInto("users")
      .values({ id: newId("user"), tenant_id: tenantId, email, role })
      .returning(COLUMNS)
      .executeTakeFirstOrThrow();
    await recordAudit(tx, tenantId, { actor: caller, action: "user.created", targetType: "user", targetId: publicId("user", row.id), details: { role } });
    return v.parse(Row, row);
  });
}

async function isTaken(tx: Tx, tenantId: TenantId, email: string, except: UserId | null): Promise<boolean> {
  let query = tx
    .selectFrom("users")
    .select("id")
    .where("tenant_id", "=", tenantId)
    .where((is) => is(is.fn("lower", ["email"]), "=", is.fn("lower", [is.val(email)])));
  if (except) query = query.where("id", "<>", except);
  return (await query.executeTakeFirst()) !== undefined;
}

/** Newest first, up to one more than `limit`. */
export async function listUsers(db: TenantDb, tenantId: TenantId, before: string | null, limit: number): Promise<UserRow[]> {
  const rows = await db.tenant(tenantId, (tx) => {
    const query = tx.selectFrom("users").select(COLUMNS).where("tenant_id", "=", tenantId);
    return (before === null ? query : query.where("id", "<", before))
      .orderBy("id", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(Row), rows);
}

export async function findUser(db: TenantDb, tenantId: TenantId, id: UserId): Promise<UserRow | null> {
  const row = await db.tenant(tenantId, (tx) => readUser(tx, tenantId, id));
  return row ? v.parse(Row, row) : null;
}

function readUser(tx: Tx, tenantId: TenantId, id: UserId) {
  return tx.selectFrom("users").select(COLUMNS).where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst();
}

/** Under the tenant's lock. Owners whose erasure is under way are not counted: their keys are revoked, and soon they are gone. */
export async function isLastOwner(tx: Tx, tenantId: TenantId, id: UserId): Promise<boolean> {
  const other = await sql`SELECT FROM users u WHERE u.tenant_id = ${tenantId} AND u.role = 'owner' AND u.id <> ${id}
    AND NOT EXISTS (SELECT FROM erasure_requests e WHERE e.user_id = u.id) LIMIT 1`.execute(tx);
  return other.rows.length === 0;
}

/** What changed holds for the user's keys once the caches know the generation. */
export async function updateUser(
  db: TenantDb,
  caller: Caller,
  id: UserId,
  change: { email?: string | undefined; role?: Role | undefined },
): Promise<{ row: UserRow; generation: string } | NotDone | null> {
  const { tenantId } = caller;
  return db.tenant(tenantId, async (tx) => {
    const own = await begin(tx, caller);
    if (!own) return { why: "over" } as const;
    const found = await readUser(tx, tenantId, id);
    if (!found) return null;
    const user = v.parse(Row, found);
    const isSelf = id === caller.userId;
    if (!isSelf && !mayActOn(own.role, user.role)) return { why: "owners_only" } as const;
    const role = change.role ?? user.role;
    if (role !== user.role) {
      if (isSelf && !scopesOf(role).every((scope) => scopesOf(user.role).includes(scope))) return { why: "own_role" } as const;
      const refusal = refuseRole(role, own.role, caller);
      if (refusal) return refusal;
      if (user.role === "owner" && (await isLastOwner(tx, tenantId, id))) return { why: "last_owner" } as const;
    }
    const email = change.email ?? user.email;
    if (email !== user.email && (await isTaken(tx, tenantId, email, id))) return { why: "taken" } as const;
    const target = { actor: caller, targetType: "user", targetId: publicId("user", id) } as const;
    if (role !== user.role || email !== user.email) {
      await tx.updateTable("users").set({ role, email }).where("tenant_id", "=", tenantId).where("id", "=", id).execute();
      if (role !== user.role) await recordAudit(tx, tenantId, { ...target, action: "user.role_set", details: { from: user.role, to: role } });
      if (email !== user.email) await recordAudit(tx, tenantId, { ...target, action: "user.email_set" });
    }
    return { row: { ...user, role, email }, generation: await readGeneration(tx, tenantId) };
  });
}

/** Deletes the user and, with it, every key of the user. Tasks and their results stay; erasing those is another call. */
export async function deleteUser(db: TenantDb, caller: Caller, id: UserId): Promise<{ generation: string } | NotDone | null> {
  const { tenantId } = caller;
  return db.tenant(tenantId, async (tx) => {
    const own = await begin(tx, caller);
    if (!own) return { why: "over" } as const;
    const found = await readUser(tx, tenantId, id);
    if (!found) return null;
    const user = v.parse(Row, found);
    if (id !== caller.userId && !mayActOn(own.role, user.role)) return { why: "owners_only" } as const;
    if (user.role === "owner" && (await isLastOwner(tx, tenantId, id))) return { why: "last_owner" } as const;
    await tx.deleteFrom("users").where("tenant_id", "=", tenantId).where("id", "=", id).execute();
    await recordAudit(tx, tenantId, { actor: caller, action: "user.deleted", targetType: "user", targetId: publicId("user", id), details: { role: user.role } });
    return { generation: await readGeneration(tx, tenantId) };
  });
}
