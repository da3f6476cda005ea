/** What endpoints can be told, and the statement that puts it down. */
import { sql } from "kysely";
import * as v from "valibot";
import type { Tx } from "../db/database.ts";
import { asId, type TenantId, type WebhookId } from "../ids.ts";

export const WEBHOOK_EVENT_TYPES = [
  "task.completed",
  "task.failed",
  "task.cancelled",
  "task.needs_input",
  "quota.warning",
  "plugin.deprecated",
  "invoice.closed",
  "webhook.disabled",
] as const;
export const WebhookEventType = v.picklist(WEBHOOK_EVENT_TYPES);
export type WebhookEventType = v.InferOutput<typeof WebhookEventType>;

export interface WebhookEvent {
  /** Events of tasks are put down where a task ends (finish_tasks). */
  type: Exclude<WebhookEventType, `task.${string}`>;
  /** What happened, once: the same key again is the same event. */
  key: string;
  /** What the receiver is told in `data`. Kept as it is, so without personal data. */
  data: Readonly<Record<string, unknown>>;
}

const Rung = v.object({ webhooks: v.array(v.string()) });

/**
 * Puts an event down for the tenant's endpoints, in the caller's transaction: of this tenant, or of the platform.
 * @returns the endpoints to ring for when it is committed; without a ring, `wake` finds them within 15 seconds.
 */
export async function enqueueWebhookEvent(tx: Tx, tenantId: TenantId, { type, key, data }: WebhookEvent): Promise<WebhookId[]> {
  const { rows } = await sql`SELECT enqueue_webhook_event(${tenantId}, ${type}, ${key}, ${JSON.stringify(data)}) AS webhooks`.execute(tx);
  return v.parse(Rung, rows[0]).webhooks.map((id) => asId("webhook", id));
}
