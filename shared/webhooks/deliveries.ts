/** The deliveries of an endpoint: what their owner sees, and how they are sent again. */
import { sql } from "kysely";
import * as v from "valibot";
import { type AuditActor, recordAudit } from "../access/audit-log.ts";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { type Id, publicId, type TenantId, type WebhookId } from "../ids.ts";
import { WebhookEventType } from "./webhook-events.ts";
import { findWebhook, lockWebhook, type WebhookRow } from "./webhooks.ts";

export type DeliveryId = Id<"delivery">;

/** `held`: the endpoint is disabled. */
export const DeliveryStatus = v.picklist(["pending", "delivered", "failed", "held"]);
export type DeliveryStatus = v.InferOutput<typeof DeliveryStatus>;

/** The newest attempts of one delivery that are shown. */
const SHOWN_ATTEMPTS = 20;

const Attempt = v.object({
  attempt: v.number(),
  at: v.string(),
  status: v.nullable(v.number()),
  ms: v.number(),
  error: v.nullable(v.string()),
  answer: v.nullable(v.string()),
});

const Row = v.object({
  id: v.string(),
  type: WebhookEventType,
  event_id: v.string(),
  task_id: v.nullable(v.string()),
  status: DeliveryStatus,
  next_attempt_at: v.date(),
  created_at: v.date(),
  finished_at: v.nullable(v.date()),
  log: v.array(Attempt),
});
export type DeliveryRow = v.InferOutput<typeof Row>;

const Time = v.pipe(v.string(), v.isoTimestamp());
export const DeliveryView = v.strictObject({
  delivery_id: v.string(),
  event_id: v.string(),
  type: WebhookEventType,
  task_id: v.nullable(v.string()),
  status: DeliveryStatus,
  created_at: Time,
  finished_at: v.nullable(Time),
  /** Null unless it is pending. */
  next_attempt_at: v.nullable(Time),
  attempts: v.array(
    v.strictObject({
      attempt: v.number(),
      at: Time,
      /** Of the answer; null when there was none, and then `error` says why. */
      status: v.nullable(v.number()),
      duration_ms: v.number(),
      error: v.nullable(v.string()),
      /** The first kilobyte of the answer's body. */
      answer: v.nullable(v.string()),
    }),
  ),
});

export function deliveryView(row: DeliveryRow): v.InferOutput<typeof DeliveryView> {
  return {
    delivery_id: publicId("delivery", row.id),
    event_id: publicId("event", row.event_id),
    type: row.type,
    task_id: row.task_id && publicId("task", row.task_id),
    status: row.status,
    created_at: row.created_at.toISOString(),
    finished_at: row.finished_at?.toISOString() ?? null,
    next_attempt_at: row.status === "pending" ? row.next_attempt_at.toISOString() : null,
    attempts: row.log.map(({ ms, at, ...attempt }) => ({ ...attempt, at: new Date(at).toISOString(), duration_ms: ms })),
  };
}

/** Newest first; one more than `limit` says that there is a next page. Null: the tenant has no such endpoint. */
export async function listDeliveries(
  db: TenantDb,
  tenantId: TenantId,
  id: WebhookId,
  filter: { status?: DeliveryStatus | undefined },
  before: string | null,
  limit: number,
): Promise<DeliveryRow[] | null> {
  if (!(await findWebhook(db, tenantId, id))) return null;
  const rows = await db.tenant(tenantId, (tx) => {
    let query = tx
      .selectFrom("webhook_deliveries as d")
      .select(["d.id", "d.type", "d.task_id", "d.status", "d.next_attempt_at", "d.created_at", "d.finished_at"])
      .select(sql<string>`webhook_event_id(d.tenant_id, d.type, d.event_key)`.as("event_id"))
      .select(
        sql`(SELECT coalesce(jsonb_agg(to_jsonb(a) - 'delivery_id' - 'tenant_id' ORDER BY a.attempt), '[]')
          FROM (SELECT * FROM webhook_attempts w WHERE w.delivery_id = d.id ORDER BY w.attempt DESC LIMIT ${SHOWN_ATTEMPTS}) a)`.as("log"),
      )
      .where("d.tenant_id", "=", tenantId)
      .where("d.webhook_id", "=", id);
    if (filter.status) query = query.where("d.status", "=", filter.status);
    if (before) query = query.where("d.id", "<", before);
    return query
      .orderBy("d.id", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(Row), rows);
}

/** Sends one delivery again, with all its tries before it. Null: there is none. */
export async function redeliver(db: TenantDb, tenantId: TenantId, actor: AuditActor, webhookId: WebhookId, id: DeliveryId): Promise<true | null> {
  return db.tenant(tenantId, async (tx) => {
    const webhook = await lockWebhook(tx, tenantId, webhookId);
    if (!webhook) return null;
    refuseDisabled(webhook);
    // One that is on its way goes on; what is written at its end counts.
    const found = await tx
      .updateTable("webhook_deliveries")
      .set({ status: "pending", tries: 0, next_attempt_at: sql<Date>`now()`, finished_at: null })
      .where("tenant_id", "=", tenantId)
      .where("webhook_id", "=", webhookId)
      .where("id", "=", id)
      .returning("id")
      .executeTakeFirst();
    if (!found) return null;
    const target = { targetType: "webhook", targetId: publicId("webhook", webhookId) };
    await recordAudit(tx, tenantId, { actor, action: "webhook.redelivered", ...target, details: { delivery: publicId("delivery", id) } });
    return true;
  });
}

/** Puts all that failed or was held since then into the queue again; says how many, or null when there is no such endpoint. */
export async function recoverSince(db: TenantDb, tenantId: TenantId, actor: AuditActor, id: WebhookId, since: Date): Promise<number | null> {
  return db.tenant(tenantId, async (tx) => {
    const webhook = await lockWebhook(tx, tenantId, id);
    if (!webhook) return null;
    refuseDisabled(webhook);
    const { numUpdatedRows } = await tx
      .updateTable("webhook_deliveries")
      .set({ status: "pending", tries: 0, next_attempt_at: sql<Date>`now()`, finished_at: null })
      .where("tenant_id", "=", tenantId)
      .where("webhook_id", "=", id)
      .where("status", "in", ["failed", "held"])
      .where("created_at", ">=", since)
      .executeTakeFirst();
    const recovered = Number(numUpdatedRows);
    const target = { targetType: "webhook", targetId: publicId("webhook", id) };
    if (recovered > 0) await recordAudit(tx, tenantId, { actor, action: "webhook.recovered", ...target, details: { since: since.toISOString(), deliveries: recovered } });
    return recovered;
  });
}

function refuseDisabled({ status }: WebhookRow): void {
  if (status === "disabled") throw new Refusal("CONFLICT", { message: "The webhook is disabled; enable it first." });
}
