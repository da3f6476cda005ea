/**
 * One wake-up of `webhook-deliver`: sends what is due for one endpoint, at most two at a time, and looks again until nothing is. Every write after
 * the claim carries the lease. Each endpoint has its own wake-ups and its own two places, so one that is slow or dead delays nobody else.
 */
import { sql } from "kysely";
import * as v from "valibot";
import { recordAudit } from "../access/audit-log.ts";
import type { KeyRing } from "../access/key-ring.ts";
import type { PlatformDb, TenantDb } from "../db/database.ts";
import type { Egress, Posted } from "../egress/outbound-post.ts";
import { failpoint } from "../failpoint.ts";
import { asId, publicId, type TenantId, type WebhookId } from "../ids.ts";
import type { Ring } from "../redis/streams.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { traceparentOf } from "../telemetry/trace.ts";
import { eventBody } from "./event-body.ts";
import { MAX_TRIES, webhookDelayMs } from "./retry-schedule.ts";
import { signatureHeaders } from "./sign-webhook.ts";
import { WebhookEventType } from "./webhook-events.ts";
import { openWebhookSecret } from "./webhook-secret.ts";

export interface WebhookSender {
  db: TenantDb;
  platformDb: PlatformDb;
  ring: Pick<Ring, "webhook" | "webhookHeard">;
  keyRing: KeyRing;
  egress: Pick<Egress, "post">;
  telemetry: Telemetry;
  publicUrl: string;
}

const AT_ONCE = 2;
/** The whole of a request, its answer included. */
const REQUEST_TIMEOUT_MS = 10_000;
/** Longer than a request and the statements around it. */
const LEASE_MS = 30_000;
/** After this long the endpoint queues again behind the others; one that is slow does so after each request, else a few dozen of them held all places. */
const SLICE_MS = 20_000;
const SLOW_MS = 1_000;
const GIVE_UP_MS = 5 * 86_400_000;
/** For trouble of the platform's own, which costs the delivery no attempt. */
const PUT_OFF_MS = 60_000;

const Claim = v.object({
  tenant_id: v.string(),
  delivery_id: v.string(),
  lease_token: v.string(),
  attempt: v.number(),
  tries: v.number(),
  type: WebhookEventType,
  event_id: v.string(),
  task_id: v.nullable(v.string()),
  data: v.unknown(),
  created_at: v.date(),
  url: v.string(),
  secret: v.instance(Buffer),
  secret_key_id: v.string(),
  previous_secret: v.nullable(v.instance(Buffer)),
  previous_secret_key_id: v.nullable(v.string()),
});
type Claim = v.InferOutput<typeof Claim>;
const Finished = v.object({ held: v.boolean(), disabled: v.boolean(), rings: v.array(v.string()) });

/** `stopping` aborts when the instance must give its work back. */
export async function deliverWebhooks(sender: WebhookSender, id: WebhookId, stopping: AbortSignal): Promise<{ outcome: "done" } | { outcome: "later"; retryAfterSec: number }> {
  await sender.ring.webhookHeard(id);
  const until = performance.now() + SLICE_MS;
  // Most rings bring one event: the second place is looked into only when the first has found something.
  const first = await claim(sender, id);
  if (first) await Promise.all([sendOn(sender, id, first, until, stopping), sendOn(sender, id, await claim(sender, id), until, stopping)]);
  return stopping.aborted ? { outcome: "later", retryAfterSec: 1 } : { outcome: "done" };
}

async function sendOn(sender: WebhookSender, id: WebhookId, first: Claim | null, until: number, stopping: AbortSignal): Promise<void> {
  for (let next = first; next; ) {
    const startedAt = performance.now();
    await attempt(sender, id, next, stopping);
    if (stopping.aborted) return;
    if (performance.now() > Math.min(until, startedAt + SLOW_MS)) {
      await sender.ring.webhook(id, traceparentOf(null));
      return;
    }
    next = await claim(sender, id);
  }
}

async function claim({ platformDb }: WebhookSender, id: WebhookId): Promise<Claim | null> {
  const [row] = await platformDb.call("SELECT * FROM claim_webhook_delivery($1, $2, $3, $4)", [id, LEASE_MS, AT_ONCE, MAX_TRIES]);
  FAILPOINT: await failpoint("webhook.after_claim");
  return row ? v.parse(Claim, row) : null;
}

async function attempt(sender: WebhookSender, id: WebhookId, claimed: Claim, stopping: AbortSignal): Promise<void> {
  const tenantId = asId("tenant", claimed.tenant_id);
  try {
    const body = await eventBody(sender.db, sender.publicUrl, {
      tenantId,
      eventId: claimed.event_id,
      type: claimed.type,
      taskId: claimed.task_id,
      data: claimed.data,
      createdAt: claimed.created_at,
    });
    const posted = body === null ? null : await post(sender, tenantId, id, claimed, body, stopping);
    FAILPOINT: await failpoint("webhook.after_answer");
    await finish(sender, tenantId, id, claimed, posted);
    FAILPOINT: await failpoint("webhook.after_finish");
  } catch (error) {
    // Not sent, or it is not known whether it arrived: the endpoint is told again, under the same id.
    await sender.db
      .call("SELECT release_webhook_delivery($1, $2, $3, $4)", [tenantId, claimed.delivery_id, claimed.lease_token, stopping.aborted ? 0 : PUT_OFF_MS])
      .catch(() => {});
    if (!stopping.aborted) sender.telemetry.degraded("webhook delivery", error);
  }
}

async function post({ keyRing, egress }: WebhookSender, tenantId: TenantId, id: WebhookId, claimed: Claim, body: string, signal: AbortSignal): Promise<Posted> {
  const open = (bytes: Buffer, keyId: string) => openWebhookSecret(keyRing, tenantId, id, { bytes, keyId });
  const { previous_secret: previous, previous_secret_key_id: previousKeyId } = claimed;
  const secrets = [open(claimed.secret, claimed.secret_key_id), ...(previous && previousKeyId !== null ? [open(previous, previousKeyId)] : [])];
  const eventId = publicId("event", claimed.event_id);
  FAILPOINT: await failpoint("webhook.before_post");
  return egress.post(claimed.url, {
    headers: {
      "content-type": "application/json",
      "user-agent": "aau-webhooks/1",
      ...signatureHeaders({ id: eventId, timestamp: Math.floor(Date.now() / 1000), body, secrets }),
    },
    body,
    timeoutMs: REQUEST_TIMEOUT_MS,
    signal,
  });
}

/** `posted` is null when the event tells of something that is erased. */
async function finish({ db, ring, telemetry }: WebhookSender, tenantId: TenantId, id: WebhookId, claimed: Claim, posted: Posted | null): Promise<void> {
  const status = posted && "status" in posted ? posted.status : null;
  const isDelivered = status !== null && status >= 200 && status < 300;
  const isGone = status === 410;
  const asked = posted && "status" in posted ? posted.retryAfterMs : null;
  const delayMs = posted === null || isGone ? null : webhookDelayMs(claimed.tries, asked);
  const error =
    posted === null ? "erased" : "failure" in posted ? posted.failure : isDelivered ? null : status !== null && status >= 300 && status < 400 ? "redirected" : "refused";
  const answer = posted && "status" in posted ? posted.answer : null;
  const done = await db.tenant(tenantId, async (tx) => {
    const outcome = posted === null ? "erased" : isDelivered ? "delivered" : isGone ? "gone" : "refused";
    const { rows } = await sql`SELECT * FROM finish_webhook_attempt(${tenantId}, ${id}, ${claimed.delivery_id}, ${claimed.lease_token}, ${outcome}, ${status}, ${posted?.ms ?? 0},
      ${error}, ${answer}, ${delayMs}, ${GIVE_UP_MS})`.execute(tx);
    const finished = v.parse(Finished, rows[0]);
    if (finished.disabled)
      await recordAudit(tx, tenantId, {
        actor: "platform:webhook-deliver",
        action: "webhook.disabled",
        targetType: "webhook",
        targetId: publicId("webhook", id),
        details: { reason: isGone ? "gone" : "failing" },
      });
    return finished;
  });
  if (!done.held) return;
  for (const other of done.rings) await ring.webhook(other, traceparentOf(null));
  telemetry.webhookSent({ tenantId, webhookId: id, type: claimed.type, status, error, attempt: claimed.attempt, durationMs: posted?.ms ?? 0, isDisabled: done.disabled });
}
