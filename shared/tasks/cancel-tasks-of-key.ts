import type { TenantDb } from "../db/database.ts";
import { asId, type KeyId, type TenantId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import { cancelTask } from "./read-tasks.ts";

const BATCH = 100;
const MAX_BATCHES = 20;
const AT_ONCE = 4;

/** Cancels what a key submitted and what is not over, as its owner would. False when there is more than one call can do. */
export async function cancelTasksOfKey(db: TenantDb, signals: Signals, tenantId: TenantId, keyId: KeyId): Promise<boolean> {
  for (let batch = 0; batch < MAX_BATCHES; batch++) {
    const rows = await db.tenant(tenantId, (tx) =>
      tx
        .selectFrom("tasks")
        .select("id")
        .where("tenant_id", "=", tenantId)
        .where("api_key_id", "=", keyId)
        .where("status", "in", ["pending", "queued", "running"])
        .where("cancel_requested_at", "is", null)
        .limit(BATCH)
        .execute(),
    );
    for (let at = 0; at < rows.length; at += AT_ONCE) {
      await Promise.all(
        rows.slice(at, at + AT_ONCE).map(async ({ id }) => {
          const taskId = asId("task", id);
          const cancelled = await cancelTask(db, tenantId, taskId);
          if (cancelled?.status === "cancelling") await signals.cancelRequested(taskId);
          else if (cancelled && !cancelled.was_over) await signals.taskEnded(taskId);
        }),
      );
    }
    if (rows.length < BATCH) return true;
  }
  return false;
}
