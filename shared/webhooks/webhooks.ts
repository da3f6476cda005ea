/** A tenant's endpoints: what a row says, and the statements that make, change and delete them. */
import { sql } from "kysely";
import * as v from "valibot";
import { type AuditActor, recordAudit } from "../access/audit-log.ts";
import type { SealedText } from "../access/sealed-text.ts";
import type { TenantDb, Tx } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { publicId, type TenantId, type WebhookId } from "../ids.ts";
import { WebhookEventType } from "./webhook-events.ts";

/** Each may have two requests on their way, so this bounds what a tenant can keep busy. */
const MAX_WEBHOOKS = 20;

const Row = v.object({
  id: v.string(),
  url: v.string(),
  description: v.string(),
  events: v.array(WebhookEventType),
  status: v.picklist(["active", "disabled"]),
  disabled_reason: v.nullable(v.picklist(["by_owner", "gone", "failing"])),
  disabled_at: v.nullable(v.date()),
  previous_secret_until: v.nullable(v.date()),
  failing_since: v.nullable(v.date()),
  last_success_at: v.nullable(v.date()),
  created_at: v.date(),
});
export type WebhookRow = v.InferOutput<typeof Row>;
const COLUMNS = [
  "id",
  "url",
  "description",
  "events",
  "status",
  "disabled_reason",
  "disabled_at",
  "previous_secret_until",
  "failing_since",
  "last_success_at",
  "created_at",
] as const;

const Time = v.pipe(v.string(), v.isoTimestamp());
export const WebhookView = v.strictObject({
  webhook_id: v.string(),
  url: v.string(),
  description: v.string(),
  events: v.array(WebhookEventType),
  status: v.picklist(["active", "disabled"]),
  /** `by_owner`, `gone` (it answered 410), or `failing` (for five days). */
  disabled_reason: v.nullable(v.picklist(["by_owner", "gone", "failing"])),
  disabled_at: v.nullable(Time),
  /** Every attempt has failed since then; null when the last one went well. */
  failing_since: v.nullable(Time),
  last_success_at: v.nullable(Time),
  /** Until then the secret before the last rotation signs too. */
  old_secret_works_until: v.nullable(Time),
  created_at: Time,
});
export const WebhookWithSecret = v.strictObject({ ...WebhookView.entries, secret: v.string() });

export function webhookView(row: WebhookRow): v.InferOutput<typeof WebhookView> {
  const { previous_secret_until: until } = row;
  return {
    webhook_id: publicId("webhook", row.id),
    url: row.url,
    description: row.description,
    events: row.events,
    status: row.status,
    disabled_reason: row.disabled_reason,
    disabled_at: row.disabled_at?.toISOString() ?? null,
    failing_since: row.failing_since?.toISOString() ?? null,
    last_success_at: row.last_success_at?.toISOString() ?? null,
    old_secret_works_until: until && until.getTime() > Date.now() ? until.toISOString() : null,
    created_at: row.created_at.toISOString(),
  };
}

export const WebhookUrl = v.pipe(v.string(), v.maxLength(2048, "must have at most 2048 characters"), v.metadata({ format: "uri", examples: ["https://hooks.aau.io/tasks"] }));
export const WebhookEvents = v.pipe(
  v.array(WebhookEventType),
  v.minLength(1, "must name at least one type of event"),
  v.maxLength(50),
  v.transform((types) => [...new Set(types)]),
);
export const WebhookDescription = v.pipe(v.string(), v.maxLength(200, "must have at most 200 characters"));

export interface NewWebhook {
  id: WebhookId;
  url: string;
  description: string;
  events: readonly WebhookEventType[];
  secret: SealedText;
}

/** @throws Refusal CONFLICT when the tenant has as many as it may have. */
export async function createWebhook(db: TenantDb, tenantId: TenantId, actor: AuditActor, { id, url, description, events, secret }: NewWebhook): Promise<WebhookRow> {
  return db.tenant(tenantId, async (tx) => {
    // Two at once must not both be the last.
    await sql`SELECT pg_advisory_xact_lock(hashtextextended(${`webhooks ${tenantId}`}, 0))`.execute(tx);
    const { count } = await tx
      .selectFrom("webhooks")
      .select(({ fn }) => fn.countAll<string>().as("count"))
      .where("tenant_id", "=", tenantId)
      .executeTakeFirstOrThrow();
    if (Number(count) >= MAX_WEBHOOKS) throw new Refusal("CONFLICT", { message: `There are ${MAX_WEBHOOKS} webhooks already; delete one first.` });
    const row = await tx
      .insertInto("webhooks")
      .values({ id, tenant_id: tenantId, url, description, events: [...events], secret: secret.bytes, secret_key_id: secret.keyId })
      .returning(COLUMNS)
      .executeTakeFirstOrThrow();
    await recordAudit(tx, tenantId, { actor, action: "webhook.created", targetType: "webhook", targetId: publicId("webhook", id), details: { events } });
    return v.parse(Row, row);
  });
}

/** In the order in which they were made; there are at most 20. */
export async function listWebhooks(db: TenantDb, tenantId: TenantId): Promise<WebhookRow[]> {
  const rows = await db.tenant(tenantId, (tx) => tx.selectFrom("webhooks").select(COLUMNS).where("tenant_id", "=", tenantId).orderBy("id").execute());
  return v.parse(v.array(Row), rows);
}

export async function findWebhook(db: TenantDb, tenantId: TenantId, id: WebhookId): Promise<WebhookRow | null> {
  const row = await db.tenant(tenantId, (tx) => tx.selectFrom("webhooks").select(COLUMNS).where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst());
  return row ? v.parse(Row, row) : null;
}

/** The row under its lock, which comes before the locks of its deliveries. */
export async function lockWebhook(tx: Tx, tenantId: TenantId, id: WebhookId): Promise<WebhookRow | null> {
  const row = await tx.selectFrom("webhooks").select(COLUMNS).where("tenant_id", "=", tenantId).where("id", "=", id).forNoKeyUpdate().executeTakeFirst();
  return row ? v.parse(Row, row) : null;
}

export interface WebhookChange {
  url?: string | undefined;
  description?: string | undefined;
  events?: readonly WebhookEventType[] | undefined;
  /** False holds what happens from now on; true begins anew, and leaves it to `recover` to send what was held. */
  enabled?: boolean | undefined;
}

/** Null: the tenant has no such endpoint. */
export async function updateWebhook(db: TenantDb, tenantId: TenantId, actor: AuditActor, id: WebhookId, change: WebhookChange): Promise<WebhookRow | null> {
  return db.tenant(tenantId, async (tx) => {
    const old = await lockWebhook(tx, tenantId, id);
    if (!old) return null;
    const { enabled, url, description, events } = change;
    // What another address did says nothing of this one.
    const isNew = (url !== undefined && url !== old.url) || (enabled === true && old.status === "disabled");
    if (enabled === false && old.status === "active") await sql`SELECT disable_webhook(w, 'by_owner') FROM webhooks w WHERE w.id = ${id}`.execute(tx);
    const row = await tx
      .updateTable("webhooks")
      .set({
        updated_at: sql<Date>`now()`,
        ...(url === undefined ? {} : { url }),
        ...(description === undefined ? {} : { description }),
        ...(events === undefined ? {} : { events: [...events] }),
        ...(isNew ? { failures: 0, failing_since: null, resume_at: null } : {}),
        ...(enabled === true ? { status: "active", disabled_reason: null, disabled_at: null } : {}),
      })
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .returning(COLUMNS)
      .executeTakeFirstOrThrow();
    await recordAudit(tx, tenantId, {
      actor,
      action: "webhook.updated",
      targetType: "webhook",
      targetId: publicId("webhook", id),
      details: { changed: Object.entries(change).flatMap(([name, value]) => (value === undefined ? [] : [name])), ...(enabled === undefined ? {} : { enabled }) },
    });
    return v.parse(Row, row);
  });
}

/** Deletes an endpoint with all that waits for it; what is on its way may still arrive. False: there is none. */
export async function deleteWebhook(db: TenantDb, tenantId: TenantId, actor: AuditActor, id: WebhookId): Promise<boolean> {
  return db.tenant(tenantId, async (tx) => {
    const { numDeletedRows } = await tx.deleteFrom("webhooks").where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst();
    if (numDeletedRows === 0n) return false;
    await tx.deleteFrom("webhook_deliveries").where("tenant_id", "=", tenantId).where("webhook_id", "=", id).execute();
    await recordAudit(tx, tenantId, { actor, action: "webhook.deleted", targetType: "webhook", targetId: publicId("webhook", id) });
    return true;
  });
}

/**
 * The new secret signs from now on, and the one before beside it for as long as is said. Null: there is no such endpoint. Throws CONFLICT where the
 * secret before still has its time: three cannot sign, and whoever was promised that time relies on it; without grace (0) it ends at once.
 */
export async function rotateWebhookSecret(db: TenantDb, tenantId: TenantId, actor: AuditActor, id: WebhookId, secret: SealedText, graceSec: number): Promise<WebhookRow | null> {
  return db.tenant(tenantId, async (tx) => {
    const row = await tx
      .updateTable("webhooks")
      .set({
        secret: secret.bytes,
        secret_key_id: secret.keyId,
        previous_secret: graceSec === 0 ? null : sql<Buffer>`secret`,
        previous_secret_key_id: graceSec === 0 ? null : sql<string>`secret_key_id`,
        previous_secret_until: graceSec === 0 ? null : sql<Date>`now() + ${graceSec} * interval '1 second'`,
        updated_at: sql<Date>`now()`,
      })
      .where("tenant_id", "=", tenantId)
      .where("id", "=", id)
      .where((e) => e.or([e.val(graceSec === 0), e("previous_secret_until", "is", null), e("previous_secret_until", "<=", sql<Date>`now()`)]))
      .returning(COLUMNS)
      .executeTakeFirst();
    if (!row) {
      const busy = await tx.selectFrom("webhooks").select("previous_secret_until").where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst();
      if (!busy) return null;
      throw new Refusal("CONFLICT", {
        message: `The secret before this one signs until ${busy.previous_secret_until?.toISOString()}; rotate with grace_seconds 0 to end it now.`,
      });
    }
    await recordAudit(tx, tenantId, { actor, action: "webhook.secret_rotated", targetType: "webhook", targetId: publicId("webhook", id), details: { grace_seconds: graceSec } });
    return v.parse(Row, row);
  });
}
