/** Statements that read tasks, their events and their artifacts, always within one tenant. */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { inBatches, perPool } from "../db/in-batches.ts";
import { asId, type TaskId, type TenantId } from "../ids.ts";
import { FullTaskRow, TaskRow, type TaskStatus } from "./task-view.ts";

const SUMMARY_COLUMNS = ["id", "plugin_name", "status", "routing_method", "routing_confidence", "created_at", "started_at", "completed_at", "input_request"] as const;

const Found = v.looseObject({ id: v.string() });

/** Looks that wait for the database travel together; many callers wait for their tasks at once. */
const readRow = perPool((db: TenantDb) =>
  inBatches<{ tenantId: TenantId; id: TaskId }, unknown>({
    statementsAtOnce: 1,
    most: 32,
    async run(asked) {
      const rows = v.parse(v.array(Found), await db.call("SELECT * FROM read_tasks($1, $2)", [asked.map(({ tenantId }) => tenantId), asked.map(({ id }) => id)]));
      return asked.map(({ tenantId, id }) => rows.find((row) => row.id === id && row.tenant_id === tenantId) ?? null);
    },
  }),
);

export async function findTask(db: TenantDb, tenantId: TenantId, id: TaskId): Promise<FullTaskRow | null> {
  const row = await readRow(db, { tenantId, id });
  return row === null ? null : v.parse(FullTaskRow, row);
}

export interface TaskFilter {
  status?: TaskStatus;
  plugin?: string;
}

/** Newest first; ids sort by time, so the id is the key of the page. One row more than `limit` says that there is a next page. */
export async function listTasks(db: TenantDb, tenantId: TenantId, filter: TaskFilter, before: TaskId | null, limit: number): Promise<TaskRow[]> {
  const rows = await db.tenant(tenantId, (tx) => {
    let query = tx.selectFrom("tasks").select(SUMMARY_COLUMNS).where("tenant_id", "=", tenantId);
    if (filter.status) query = query.where("status", "=", filter.status);
    if (filter.plugin) query = query.where("plugin_name", "=", filter.plugin);
    if (before) query = query.where("id", "<", before);
    return query
      .orderBy("id", "desc")
      .limit(limit + 1)
      .execute();
  });
  return v.parse(v.array(TaskRow), rows);
}

export const TaskEvent = v.object({ seq: v.number(), type: v.string(), data: v.record(v.string(), v.unknown()), at: v.date() });
export type TaskEvent = v.InferOutput<typeof TaskEvent>;

/** Events after `afterSeq` in order, and whether the task is over; null when the tenant has no such task. */
export async function readTaskEvents(db: TenantDb, tenantId: TenantId, id: TaskId, afterSeq: number, limit: number): Promise<{ events: TaskEvent[]; status: string } | null> {
  return db.tenant(tenantId, async (tx) => {
    // The status first: events of a task that is over are all there.
    const task = await tx.selectFrom("tasks").select("status").where("tenant_id", "=", tenantId).where("id", "=", id).executeTakeFirst();
    if (!task) return null;
    const rows = await tx
      .selectFrom("task_events")
      .select(["seq", "type", "data", "at"])
      .where("task_id", "=", id)
      .where("tenant_id", "=", tenantId)
      .where("seq", ">", afterSeq)
      .orderBy("seq")
      .limit(limit)
      .execute();
    return { events: v.parse(v.array(TaskEvent), rows), status: task.status };
  });
}

/** Of several steps that stored one under this name, the first one's, unless `step` is given. `waiting_bytes`: the file itself, while the object store has not taken it yet. */
export async function findArtifact(db: TenantDb, tenantId: TenantId, taskId: TaskId, name: string, step?: string) {
  const row = await db.tenant(tenantId, (tx) => {
    let query = tx
      .selectFrom("artifacts as a")
      .leftJoin("artifact_uploads as u", "u.artifact_id", "a.id")
      .select(["a.storage_key", "a.name", "a.media_type", "a.sha256", "u.bytes as waiting_bytes"])
      .where("a.tenant_id", "=", tenantId)
      .where("a.task_id", "=", taskId)
      .where("a.name", "=", name);
    if (step !== undefined) query = query.where("a.step", "=", step);
    return query.orderBy("a.created_at").orderBy("a.id").limit(1).executeTakeFirst();
  });
  return row ?? null;
}

/** `rings`: the endpoints that are to be told. */
const Cancelled = v.object({ status: v.string(), was_over: v.boolean(), rings: v.array(v.string()) });

/** Cancels a queued task at once and asks a running one to stop; null when the tenant has no such task. */
export async function cancelTask(db: TenantDb, tenantId: TenantId, id: TaskId) {
  const [row] = await db.call("SELECT * FROM cancel_task($1, $2)", [tenantId, id]);
  return row ? v.parse(Cancelled, row) : null;
}

const Due = v.object({ id: v.string(), plugin_name: v.string(), traceparent: v.nullable(v.string()) });

export async function takeDueTasks(db: Pick<TenantDb, "call">, limit: number) {
  const rows = await db.call("SELECT * FROM take_due_tasks($1)", [limit]);
  return v.parse(v.array(Due), rows).map((row) => ({ id: asId("task", row.id), plugin: row.plugin_name, traceparent: row.traceparent }));
}
