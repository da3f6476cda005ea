/**
 * What goes by itself when its time is over (SPEC section 22), a bounded batch at a time. Every statement works from what is due, by an index that
 * begins with the oldest, so it may be stopped anywhere, run again, and run twice at once. Tickets, documents, configuration and secrets are the
 * organisation's, and stay until it deletes them.
 */
import { sql } from "kysely";
import type { PlatformDb, Tx } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import { emptyContent, TASK_TABLES } from "./erase-rows.ts";

export const RETENTION = { contentDays: 90, turnDays: 90, keyDays: 90, taskMonths: 13, idempotencyHours: 24, billingYears: 7, orphanHours: 24, deliveryDays: 30 } as const;

const BATCH = 200;
const ROWS = 1_000;
const AT_ONCE = 16;

/** One batch; how much it took away. 0: nothing is due. */
export type Purge = (parts: { db: PlatformDb; storage: ObjectStore }) => Promise<number>;

export const PURGES: Readonly<Record<string, Purge>> = {
  content: ({ db }) => db.platform(purgeContent),
  artifacts: purgeArtifacts,
  conversations: async ({ db }) => {
    const [row] = await db.call<{ gone: number }>("SELECT purge_turns(now() - $1 * interval '1 day', $2) AS gone", [RETENTION.turnDays, ROWS]);
    return row?.gone ?? 0;
  },
  "idempotency keys": ({ db }) =>
    db.platform((tx) =>
      affected(
        sql`DELETE FROM idempotency_keys WHERE ctid IN (SELECT ctid FROM idempotency_keys WHERE created_at < now() - ${RETENTION.idempotencyHours} * interval '1 hour'
          ORDER BY created_at LIMIT ${ROWS} FOR UPDATE SKIP LOCKED)`.execute(tx),
      ),
    ),
  // Their attempts go with them.
  "webhook deliveries": ({ db }) =>
    db.platform((tx) =>
      affected(
        sql`DELETE FROM webhook_deliveries WHERE id IN (SELECT d.id FROM tenants t CROSS JOIN LATERAL (
            SELECT k.id FROM webhook_deliveries k WHERE k.tenant_id = t.id AND k.created_at < now() - ${RETENTION.deliveryDays} * interval '1 day' ORDER BY k.created_at LIMIT ${ROWS}
          ) d LIMIT ${ROWS})`.execute(tx),
      ),
    ),
  tasks: ({ db }) => db.platform(purgeTasks),
  // With their lines, and the usage that they stand for.
  invoices: async ({ db }) => {
    const [row] = await db.call<{ gone: number }>("SELECT purge_invoices(now() - $1 * interval '1 year', $2) AS gone", [RETENTION.billingYears, BATCH]);
    return row?.gone ?? 0;
  },
  "usage periods": ({ db }) => db.platform((tx) => affected(sql`DELETE FROM usage_periods WHERE period_start < now() - ${RETENTION.billingYears} * interval '1 year'`.execute(tx))),
};

async function affected(result: Promise<{ numAffectedRows?: bigint }>): Promise<number> {
  return Number((await result).numAffectedRows ?? 0n);
}

const CONTENT_TABLES = TASK_TABLES.filter(({ personal }) => personal.isContent);

/** The mark's lock lets one run at a time move it, and another that is under way goes on to the next thing. */
async function purgeContent(tx: Tx): Promise<number> {
  const mark = await sql<{ through: string }>`SELECT coalesce(nullif(through, ''), '00000000-0000-0000-0000-000000000000') AS through FROM retention_marks
    WHERE kind = 'content' FOR UPDATE SKIP LOCKED`.execute(tx);
  if (!mark.rows[0]) return 0;
  const due = await sql<{ id: string; is_over: boolean }>`SELECT id, status IN ('success', 'partial', 'failed', 'cancelled') AS is_over FROM tasks
    WHERE id > ${mark.rows[0].through} AND id < first_id_at(now() - ${RETENTION.contentDays} * interval '1 day') ORDER BY id LIMIT ${BATCH}`.execute(tx);
  // Ninety days after it began a task is over, unless the platform stood still all that time: then this waits for it.
  const open = due.rows.findIndex(({ is_over }) => !is_over);
  const ids = due.rows.slice(0, open < 0 ? undefined : open).map(({ id }) => id);
  const last = ids.at(-1);
  if (last === undefined) return 0;
  for (const table of CONTENT_TABLES) await emptyContent(tx, table, ids);
  await sql`UPDATE retention_marks SET through = ${last} WHERE kind = 'content'`.execute(tx);
  return ids.length;
}

/** The object before its row, as in an erasure. */
async function purgeArtifacts({ db, storage }: { db: PlatformDb; storage: ObjectStore }): Promise<number> {
  const due = await db.platform((tx) =>
    sql<{ id: string; storage_key: string }>`SELECT a.id, a.storage_key FROM tenants t CROSS JOIN LATERAL (
        SELECT k.id, k.storage_key FROM artifacts k WHERE k.tenant_id = t.id AND k.created_at < now() - artifact_days(t.settings) * interval '1 day' ORDER BY k.created_at LIMIT ${BATCH}
      ) a LIMIT ${BATCH}`.execute(tx),
  );
  for (let at = 0; at < due.rows.length; at += AT_ONCE) await Promise.all(due.rows.slice(at, at + AT_ONCE).map(({ storage_key }) => storage.delete(storage_key)));
  FAILPOINT: await failpoint("retention.after_objects");
  if (due.rows.length === 0) return 0;
  await db.platform((tx) => sql`DELETE FROM artifacts WHERE id = ANY (${due.rows.map(({ id }) => id)}::uuid[])`.execute(tx));
  return due.rows.length;
}

/** With all that is found by it. A file that the store did not let go of keeps its task. */
async function purgeTasks(tx: Tx): Promise<number> {
  const due = await sql<{ id: string }>`SELECT t.id FROM tasks t WHERE t.id < first_id_at(now() - ${RETENTION.taskMonths} * interval '1 month')
    AND NOT EXISTS (SELECT FROM artifacts a WHERE a.task_id = t.id) ORDER BY t.id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`.execute(tx);
  const ids = due.rows.map(({ id }) => id);
  if (ids.length === 0) return 0;
  for (const table of ["execution_events", "task_steps", "task_events"]) await sql`DELETE FROM ${sql.table(table)} WHERE task_id = ANY (${ids}::uuid[])`.execute(tx);
  await sql`DELETE FROM tasks WHERE id = ANY (${ids}::uuid[])`.execute(tx);
  return ids.length;
}

/**
 * Deletes objects that no row has named for a day: their gateway was killed between the put and the row. One page of the bucket; the mark says where
 * the next run goes on. Null at the bucket's end.
 */
export async function sweepOrphans({ db, storage }: { db: PlatformDb; storage: ObjectStore }, now: Date): Promise<number | null> {
  const marks = await db.platform((tx) => sql<{ through: string }>`SELECT through FROM retention_marks WHERE kind = 'objects'`.execute(tx));
  const page = await storage.list("", marks.rows[0]?.through || null);
  const oldest = now.getTime() - RETENTION.orphanHours * 3_600_000;
  const suspects = page.filter(({ key, modifiedAt }) => ARTIFACT.test(key) && modifiedAt.getTime() < oldest).map(({ key }) => key);
  const tasks = [...new Set(suspects.map((key) => key.split("/")[2] ?? ""))];
  const named = await db.platform((tx) => sql<{ storage_key: string }>`SELECT storage_key FROM artifacts WHERE task_id = ANY (${tasks}::uuid[])`.execute(tx));
  const known = new Set(named.rows.map(({ storage_key }) => storage_key));
  const orphans = suspects.filter((key) => !known.has(key));
  for (let at = 0; at < orphans.length; at += AT_ONCE) await Promise.all(orphans.slice(at, at + AT_ONCE).map((key) => storage.delete(key)));
  const last = page.at(-1)?.key ?? "";
  await db.platform((tx) => sql`UPDATE retention_marks SET through = ${last} WHERE kind = 'objects'`.execute(tx));
  return last === "" ? null : orphans.length;
}

const ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const ARTIFACT = new RegExp(`^${ID}/[a-z0-9-]+/${ID}/`);
