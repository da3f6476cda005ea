/**
 * The record of who did what for a tenant. An entry is written in the transaction of the deed, so that there is neither without the other,
 * and chained there to the one before (migrations/0014). Writing takes the lock on the tenant's head: make it the transaction's last statement.
 */
import * as v from "valibot";
import type { TenantDb, Tx } from "../db/database.ts";
import { publicId, type TenantId } from "../ids.ts";
import type { Caller } from "./caller.ts";

/** Every deed that is recorded. */
export const AUDIT_ACTIONS = [
  "tenant.created",
  "tenant.tier_set",
  "tenant.settings_set",
  "user.created",
  "user.role_set",
  "user.email_set",
  "user.deleted",
  "key.created",
  "key.rotated",
  "key.revoked",
  "secret.set",
  "secret.deleted",
  "config.set",
  "webhook.created",
  "webhook.updated",
  "webhook.deleted",
  "webhook.secret_rotated",
  "webhook.disabled",
  "webhook.redelivered",
  "webhook.recovered",
  "subscription.created",
  "subscription.updated",
  "subscription.ended",
  "invoice.closed",
  "erasure.requested",
  "erasure.completed",
  "data.exported",
  "retention.set",
] as const;
export const AuditAction = v.picklist(AUDIT_ACTIONS);
export type AuditAction = v.InferOutput<typeof AuditAction>;

/** A caller's key and its user; whoever runs the platform's commands; or a job of the platform. */
export type AuditActor = Pick<Caller, "keyId" | "userId"> | "operator" | `platform:${string}`;

/** Ids, names and codes. Nothing that somebody wrote: what stands in the log cannot be erased. */
type Detail = string | number | boolean | null;

export interface AuditEntry {
  actor: AuditActor;
  action: AuditAction;
  /** The kind of thing, such as `key` or `webhook`. */
  targetType: string;
  /** Its public id or name. */
  targetId: string;
  details?: Readonly<Record<string, Detail | readonly Detail[]>>;
}

const Token = v.pipe(v.string(), v.regex(/^[\w.:/*+~<>=^-]{0,128}$/, "must be an id, a name or a code"));
const Value = v.union([Token, v.number(), v.boolean(), v.null()]);
const Details = v.record(Token, v.union([Value, v.array(Value)]));

/** @throws ValiError when a detail is anything but an id, a name, a code or a number. */
export async function recordAudit(tx: Tx, tenantId: TenantId, { actor, action, targetType, targetId, details = {} }: AuditEntry): Promise<void> {
  await tx
    .insertInto("audit_log")
    .values({
      tenant_id: tenantId,
      actor: actorRef(actor),
      key_ref: typeof actor === "string" ? null : publicId("key", actor.keyId),
      action,
      target_type: v.parse(Token, targetType),
      target_id: v.parse(Token, targetId),
      details: JSON.stringify(v.parse(Details, details)),
    })
    .execute();
}

function actorRef(actor: AuditActor): string {
  if (typeof actor === "string") return v.parse(Token, actor);
  return actor.userId === null ? publicId("key", actor.keyId) : publicId("user", actor.userId);
}

export const AuditView = v.strictObject({
  seq: v.pipe(v.number(), v.safeInteger(), v.description("Counts the tenant's entries from 1, without gaps.")),
  at: v.pipe(v.string(), v.isoTimestamp()),
  actor: v.pipe(v.string(), v.description("A user, a key that belongs to no user, `operator`, or a job of the platform.")),
  key_id: v.nullable(v.string()),
  action: v.string(),
  target: v.strictObject({ type: v.string(), id: v.string() }),
  details: v.record(v.string(), v.unknown()),
  hash: v.pipe(v.string(), v.description("SHA-256 over this entry and the hash of the one before.")),
});

const Row = v.pipe(
  v.object({
    seq: v.pipe(v.string(), v.transform(Number)),
    at: v.date(),
    actor: v.string(),
    key_ref: v.nullable(v.string()),
    action: v.string(),
    target_type: v.string(),
    target_id: v.string(),
    details: v.record(v.string(), v.unknown()),
    hash: v.instance(Buffer),
  }),
  v.transform(
    (row): v.InferOutput<typeof AuditView> => ({
      seq: row.seq,
      at: row.at.toISOString(),
      actor: row.actor,
      key_id: row.key_ref,
      action: row.action,
      target: { type: row.target_type, id: row.target_id },
      details: row.details,
      hash: row.hash.toString("hex"),
    }),
  ),
);

export interface AuditFilter {
  action?: AuditAction | undefined;
  actor?: string | undefined;
  from?: Date | undefined;
  to?: Date | undefined;
}

/** Newest first, up to one more than `limit`. */
export async function listAudit(db: TenantDb, tenantId: TenantId, filter: AuditFilter, beforeSeq: number | null, limit: number): Promise<v.InferOutput<typeof AuditView>[]> {
  const rows = await db.tenant(tenantId, (tx) => {
    let query = tx.selectFrom("audit_log").select(["seq", "at", "actor", "key_ref", "action", "target_type", "target_id", "details", "hash"]).where("tenant_id", "=", tenantId);
    if (filter.action) query = query.where("action", "=", filter.action);
    if (filter.actor) query = query.where("actor", "=", filter.actor);
    if (filter.from) query = query.where("at", ">=", filter.from);
    if (filter.to) query = query.where("at", "<", filter.to);
    if (beforeSeq !== null) query = query.where("seq", "<", String(beforeSeq));
    return query
      .orderBy("seq", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(Row), rows);
}
