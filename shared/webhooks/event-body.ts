/**
 * What a receiver is sent. The body of a task's event is made from the task's row when it is sent, so that nothing of it is kept twice; the row of
 * a task that is over stays as it is, and what an answer changes in one that waited stands in the event. So every attempt carries the same body.
 */
import * as v from "valibot";
import { Environment } from "../access/caller.ts";
import type { TenantDb } from "../db/database.ts";
import { asId, publicId, type TenantId } from "../ids.ts";
import { findTask } from "../tasks/read-tasks.ts";
import { type FullTaskRow, ROUTING_METHODS, taskView } from "../tasks/task-view.ts";
import type { WebhookEventType } from "./webhook-events.ts";

/** Of a larger task the receiver is told all but its result, which it can fetch. */
const MAX_DATA_BYTES = 64 * 1024;

export interface EventToSend {
  tenantId: TenantId;
  eventId: string;
  type: WebhookEventType;
  taskId: string | null;
  data: unknown;
  createdAt: Date;
}

const OfTask = v.object({ environment: v.optional(Environment, "live") });
const Asked = v.object({ routing_method: v.picklist(ROUTING_METHODS), routing_confidence: v.nullable(v.number()) });
/** As PostgreSQL writes it into JSON, to what the outside gets. */
const Time = v.pipe(
  v.string(),
  v.transform((text) => new Date(text).toISOString()),
);
const Disabled = v.object({ webhook: v.string(), url: v.string(), reason: v.string(), failing_since: v.nullable(Time), disabled_at: Time });
const Deprecated = v.looseObject({ deprecated_at: v.nullable(Time), sunset_at: v.nullable(Time) });

/** `{id, type, created_at, data}` as JSON; null when what it tells of is erased. `publicUrl` is how callers reach the gateway. */
export async function eventBody(db: TenantDb, publicUrl: string, event: EventToSend): Promise<string | null> {
  const { eventId, type, createdAt } = event;
  const data = await eventData(db, publicUrl, event);
  return data === null ? null : JSON.stringify({ id: publicId("event", eventId), type, created_at: createdAt.toISOString(), data });
}

async function eventData(db: TenantDb, publicUrl: string, { tenantId, type, taskId, data }: EventToSend): Promise<unknown> {
  if (taskId !== null) {
    const task = await findTask(db, tenantId, asId("task", taskId));
    return task && ofTask(type === "task.needs_input" ? asItAsked(task, v.parse(Asked, data)) : task, v.parse(OfTask, data).environment, publicUrl);
  }
  if (type === "plugin.deprecated") return v.parse(Deprecated, data);
  if (type !== "webhook.disabled") return data;
  const { webhook, ...rest } = v.parse(Disabled, data);
  return { webhook_id: publicId("webhook", webhook), ...rest };
}

/** What `GET /v1/tasks/{task_id}` shows, and where. */
function ofTask(row: FullTaskRow, environment: string, publicUrl: string) {
  const view = taskView(row);
  const data = { ...view, environment, url: `${publicUrl.replace(/\/+$/, "")}/v1/tasks/${view.task_id}`, is_truncated: false };
  if (Buffer.byteLength(JSON.stringify(data)) <= MAX_DATA_BYTES) return data;
  return { ...data, result: null, data: null, artifacts: [], steps: [], next_steps: [], warnings: [], is_truncated: true };
}

/** As it was when it asked, whatever has become of it. */
function asItAsked(row: FullTaskRow, asked: v.InferOutput<typeof Asked>): FullTaskRow {
  return { ...row, ...asked, status: "pending", plugin_name: null, plan: [], ended_steps: null, result: null, error: null, started_at: null, completed_at: null };
}
