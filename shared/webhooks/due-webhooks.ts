import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { asId, type WebhookId } from "../ids.ts";

const Due = v.array(v.object({ id: v.string() }));

/** Endpoints for which something is due that nobody sends. */
export async function takeDueWebhooks(db: PlatformDb, limit: number): Promise<WebhookId[]> {
  const rows = await db.call("SELECT * FROM take_due_webhooks($1)", [limit]);
  return v.parse(Due, rows).map(({ id }) => asId("webhook", id));
}
