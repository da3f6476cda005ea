/** Statements on the ledger of erasures. Whoever works on one holds a lease on its row, and what a batch took away is counted in the batch's transaction. */

import { sql } from "kysely";
import * as v from "valibot";
import { findOwn } from "../access/api-keys.ts";
import { recordAudit } from "../access/audit-log.ts";
import type { Caller } from "../access/caller.ts";
import { readGeneration } from "../access/key-cache.ts";
import { mayActOn, Role } from "../access/roles.ts";
import { lockTenant } from "../access/tenant-lock.ts";
import { isLastOwner } from "../access/users.ts";
import type { PlatformDb, TenantDb, Tx } from "../db/database.ts";
import { asId, type ErasureId, newId, publicId, type TenantId, type UserId } from "../ids.ts";

export const LEASE_MS = 60_000;

const Count = v.record(v.string(), v.number());
export type Counts = v.InferOutput<typeof Count>;

const Row = v.object({
  id: v.string(),
  state: v.picklist(["queued", "running", "completed"]),
  counts: Count,
  requested_at: v.date(),
  completed_at: v.nullable(v.date()),
  certificate: v.nullable(v.object({ subject_sha256: v.string(), verified_at: v.string(), searched: v.array(v.string()) })),
});
export type ErasureRow = v.InferOutput<typeof Row>;
const COLUMNS = sql`id, state, counts, requested_at, completed_at, certificate`;

export interface RequestedErasure {
  id: ErasureId;
  row: ErasureRow;
  /** Digests of the keys that were revoked with it. */
  /** The generation that the key caches have to hear of; null when nothing was taken from any key. */
  generation: string | null;
}

/** Why nobody is forgotten. */
type NotRequested = "over" | "owners_only" | "last_owner";

/**
 * Notes the request and revokes the user's keys, in one transaction, before anything is deleted. The same user again, or at once, is the same
 * erasure, also when it is over. Null: the tenant has no such user and had none that was erased. `over`: the caller's own key is no longer good.
 */
export async function requestErasure(db: TenantDb, tenantId: TenantId, userId: UserId, actor: Caller | "operator"): Promise<RequestedErasure | NotRequested | null> {
  return db.tenant(tenantId, async (tx) => {
    // Of two owners who are to be forgotten at once, one stays.
    await lockTenant(tx, tenantId);
    // This lock makes a second request wait for the first, and the end of an erasure for both.
    const user = await tx.selectFrom("users").select("role").where("tenant_id", "=", tenantId).where("id", "=", userId).forUpdate().executeTakeFirst();
    const known = await sql`SELECT ${COLUMNS} FROM erasure_requests WHERE tenant_id = ${tenantId} AND subject_sha256 = erasure_subject(${tenantId}, ${userId})`.execute(tx);
    const existing = known.rows[0] === undefined ? null : v.parse(Row, known.rows[0]);
    const isKnown = user !== undefined || (await wasRemoved(tx, tenantId, userId));
    if (existing && (existing.state !== "completed" || !isKnown)) return { id: asId("erasure", existing.id), row: existing, generation: null };
    if (!isKnown) return null;
    const isSelf = actor !== "operator" && actor.userId === userId;
    if (actor !== "operator" && !isSelf) {
      const own = await findOwn(tx, actor);
      if (!own) return "over";
      if (!mayActOn(own.role, user ? v.parse(Role, user.role) : null)) return "owners_only";
    }
    if (user?.role === "owner" && (await isLastOwner(tx, tenantId, userId))) return "last_owner";
    const requestedBy = isSelf ? "user" : "tenant";
    const made = await sql`INSERT INTO erasure_requests (id, tenant_id, subject_sha256, user_id, requested_by)
      VALUES (${newId("erasure")}, ${tenantId}, erasure_subject(${tenantId}, ${userId}), ${userId}, ${requestedBy})
      ON CONFLICT (tenant_id, subject_sha256) DO UPDATE SET ${REOPENED}
      RETURNING ${COLUMNS}`.execute(tx);
    const row = v.parse(Row, made.rows[0]);
    const id = asId("erasure", row.id);
    const generation = await revokeKeys(tx, tenantId, userId);
    await recordAudit(tx, tenantId, { actor, action: "erasure.requested", targetType: "erasure", targetId: publicId("erasure", id) });
    return { id, row, generation };
  });
}

/** Removed, not erased: what the user did is still there. */
export async function wasRemoved(tx: Tx, tenantId: TenantId, userId: UserId): Promise<boolean> {
  const found = await sql`SELECT 1 FROM removed_users WHERE tenant_id = ${tenantId} AND user_id = ${userId}`.execute(tx);
  return found.rows.length > 0;
}

/** Somebody who was erased is there again, from an old backup. */
const REOPENED = sql`user_id = EXCLUDED.user_id, requested_by = EXCLUDED.requested_by, state = 'queued', done = '{}', counts = '{}', certificate = NULL, attempts = 0,
  next_attempt_at = now(), ring_count = 0, next_ring_at = now() + interval '10 seconds', requested_at = now(), completed_at = NULL`;

export async function revokeKeys(tx: Tx, tenantId: TenantId, userId: UserId): Promise<string> {
  await lockTenant(tx, tenantId);
  await tx.updateTable("api_keys").set({ revoked_at: sql<Date>`coalesce(revoked_at, now())` }).where("tenant_id", "=", tenantId).where("user_id", "=", userId).execute();
  return readGeneration(tx, tenantId);
}

/** Null: the tenant has no such erasure. */
export async function findErasure(db: TenantDb, tenantId: TenantId, id: ErasureId): Promise<ErasureRow | null> {
  const found = await db.tenant(tenantId, (tx) => sql`SELECT ${COLUMNS} FROM erasure_requests WHERE tenant_id = ${tenantId} AND id = ${id}`.execute(tx));
  return found.rows[0] === undefined ? null : v.parse(Row, found.rows[0]);
}

const ClaimRow = v.object({
  tenant_id: v.string(),
  user_id: v.string(),
  subject_sha256: v.string(),
  pseudonym: v.string(),
  requested_at: v.date(),
  lease_token: v.string(),
  done: v.array(v.string()),
});

export interface ErasureClaim {
  id: ErasureId;
  tenantId: TenantId;
  userId: UserId;
  subject: string;
  pseudonym: string;
  requestedAt: Date;
  lease: string;
  /** Stores that an earlier attempt has finished. */
  done: ReadonlySet<string>;
}

/** Null: it is over, not due, or held by another. */
export async function claimErasure(db: PlatformDb, id: ErasureId): Promise<ErasureClaim | null> {
  const [raw] = await db.call("SELECT * FROM claim_erasure($1, $2)", [id, LEASE_MS]);
  if (!raw) return null;
  const row = v.parse(ClaimRow, raw);
  return {
    id,
    tenantId: asId("tenant", row.tenant_id),
    userId: asId("user", row.user_id),
    subject: row.subject_sha256,
    pseudonym: row.pseudonym,
    requestedAt: row.requested_at,
    lease: row.lease_token,
    done: new Set(row.done),
  };
}

/** Another worker has the erasure: what this one was about to write is rolled back. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}

/** One batch: its statements, and what they took away, in one transaction under the lease. */
export async function eraseBatch<T>(db: PlatformDb, claim: ErasureClaim, work: (tx: Tx) => Promise<{ counts?: Counts; result: T }>): Promise<T> {
  return db.platform(async (tx) => {
    const { counts = {}, result } = await work(tx);
    await noteErased(tx, claim, counts);
    return result;
  });
}

async function noteErased(tx: Tx, claim: ErasureClaim, counts: Counts): Promise<void> {
  const taken = Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
  const noted = await sql<{ held: boolean }>`SELECT note_erased(${claim.id}, ${claim.lease}, ${LEASE_MS}, ${JSON.stringify(taken)}) AS held`.execute(tx);
  if (!noted.rows[0]?.held) throw new LeaseLost();
}

export async function markDone(db: PlatformDb, claim: ErasureClaim, store: string): Promise<void> {
  await eraseBatch(db, claim, async (tx) => {
    await sql`UPDATE erasure_requests SET done = array_append(done, ${store}) WHERE id = ${claim.id} AND NOT ${store} = ANY (done)`.execute(tx);
    return { result: undefined };
  });
}

/** Something was left: every store is done again. */
export async function beginAgain(db: PlatformDb, claim: ErasureClaim): Promise<void> {
  await eraseBatch(db, claim, async (tx) => {
    await sql`UPDATE erasure_requests SET done = '{}', leftovers = leftovers + 1 WHERE id = ${claim.id}`.execute(tx);
    return { result: undefined };
  });
}

/** Gives the lease back; `wake` rings when the time has come. */
export async function putOffErasure(db: PlatformDb, claim: ErasureClaim, delayMs: number): Promise<void> {
  await db.platform((tx) =>
    sql`UPDATE erasure_requests SET lease_token = NULL, lease_until = NULL, next_attempt_at = now() + ${delayMs} * interval '1 millisecond',
      next_ring_at = now() + ${delayMs} * interval '1 millisecond' WHERE id = ${claim.id} AND lease_token = ${claim.lease}`.execute(tx),
  );
}

/**
 * The last transaction: the user's row with the keys, the list of what was the subject's, the pseudonym and the user's id in the ledger all go, and
 * the certificate is there.
 */
export async function completeErasure(db: PlatformDb, claim: ErasureClaim, searched: readonly string[]): Promise<void> {
  await db.platform(async (tx) => {
    // In the order in which a request locks them.
    await lockTenant(tx, claim.tenantId);
    await tx.selectFrom("users").select("id").where("tenant_id", "=", claim.tenantId).where("id", "=", claim.userId).forUpdate().execute();
    const keys = await tx.deleteFrom("api_keys").where("tenant_id", "=", claim.tenantId).where("user_id", "=", claim.userId).executeTakeFirst();
    const users = await tx.deleteFrom("users").where("tenant_id", "=", claim.tenantId).where("id", "=", claim.userId).executeTakeFirst();
    await sql`DELETE FROM removed_users WHERE tenant_id = ${claim.tenantId} AND user_id = ${claim.userId}`.execute(tx);
    await noteErased(tx, claim, { api_keys: Number(keys.numDeletedRows), users: Number(users.numDeletedRows) });
    await sql`DELETE FROM erasure_items WHERE erasure_id = ${claim.id}`.execute(tx);
    await sql`UPDATE erasure_requests SET state = 'completed', user_id = NULL, pseudonym = NULL, lease_token = NULL, lease_until = NULL, completed_at = now(),
        certificate = jsonb_build_object('subject_sha256', subject_sha256, 'verified_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'searched', ${JSON.stringify(searched)}::jsonb)
      WHERE id = ${claim.id}`.execute(tx);
    await recordAudit(tx, claim.tenantId, { actor: "platform:user-erase", action: "erasure.completed", targetType: "erasure", targetId: publicId("erasure", claim.id) });
  });
}

const Due = v.object({ id: v.string() });

export async function takeDueErasures(db: Pick<PlatformDb, "call">, limit: number): Promise<ErasureId[]> {
  const rows = await db.call("SELECT id FROM take_due_erasures($1)", [limit]);
  return v.parse(v.array(Due), rows).map((row) => asId("erasure", row.id));
}

/** Opens an erasure again for everybody of these digests who is there: their data came back with a backup. How many that were. */
export async function reopenErasures(db: PlatformDb, tenantId: TenantId, subjects: readonly string[]): Promise<number> {
  return db.platform(async (tx) => {
    await lockTenant(tx, tenantId);
    await sql`SELECT FROM users WHERE tenant_id = ${tenantId} AND erasure_subject(tenant_id, id) = ANY (${subjects}::text[]) ORDER BY id FOR UPDATE`.execute(tx);
    const back = await sql<{
      id: string;
    }>`SELECT id FROM (SELECT id FROM users WHERE tenant_id = ${tenantId} UNION SELECT user_id FROM removed_users WHERE tenant_id = ${tenantId}) known
      WHERE erasure_subject(${tenantId}, id) = ANY (${subjects}::text[]) ORDER BY id`.execute(tx);
    let count = 0;
    for (const { id } of back.rows) {
      const made = await sql`INSERT INTO erasure_requests AS e (id, tenant_id, subject_sha256, user_id, requested_by)
        VALUES (${newId("erasure")}, ${tenantId}, erasure_subject(${tenantId}, ${id}), ${id}, 'restore')
        ON CONFLICT (tenant_id, subject_sha256) DO UPDATE SET ${REOPENED} WHERE e.state = 'completed'`.execute(tx);
      if (Number(made.numAffectedRows ?? 0n) === 0) continue;
      await revokeKeys(tx, tenantId, asId("user", id));
      count += 1;
    }
    return count;
  });
}
