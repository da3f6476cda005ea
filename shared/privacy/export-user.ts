/**
 * Everything that the list says is a person's, as one JSON text, written while it is read: however much somebody has done, a few tasks are in memory
 * at a time. Files are named with the address that serves them.
 */
import { sql } from "kysely";
import { type AuditActor, recordAudit } from "../access/audit-log.ts";
import type { TenantDb, Tx } from "../db/database.ts";
import { publicId, type TenantId, type UserId } from "../ids.ts";
import { childrenOf, type PersonalTable, TASK_TABLES, USER_TABLES } from "./erase-rows.ts";
import { wasRemoved } from "./erasure-ledger.ts";
import { TABLES } from "./personal-data.ts";

/** Each may hold 8 MiB of attachments. */
const TASKS = 8;
const WALKED = 5_000;
const FIRST = "00000000-0000-0000-0000-000000000000";

type Row = Record<string, unknown>;

/** Notes that somebody takes a user's data. False: the tenant has no such user. */
export async function noteExport(db: TenantDb, tenantId: TenantId, userId: UserId, actor: AuditActor): Promise<boolean> {
  return db.tenant(tenantId, async (tx) => {
    const row = await tx.selectFrom("users").select("id").where("tenant_id", "=", tenantId).where("id", "=", userId).executeTakeFirst();
    const isKnown = row !== undefined || (await wasRemoved(tx, tenantId, userId));
    if (isKnown) await recordAudit(tx, tenantId, { actor, action: "data.exported", targetType: "user", targetId: publicId("user", userId) });
    return isKnown;
  });
}

export async function* exportUser(db: TenantDb, tenantId: TenantId, userId: UserId, now: Date): AsyncGenerator<string> {
  yield `{"user_id":${JSON.stringify(publicId("user", userId))},"exported_at":${JSON.stringify(now.toISOString())}`;
  for (const [name, column] of [
    ["users", "id"],
    ["api_keys", "user_id"],
    ...USER_TABLES.filter(({ personal }) => personal.exported).map((table) => [table.name, table.column]),
  ] as const) {
    yield `,${JSON.stringify(name)}:[`;
    yield* listed(rowsOfUser(db, tenantId, userId, name, column));
    yield "]";
  }
  yield `,"tasks":[`;
  yield* listed(tasksOf(db, tenantId, userId));
  yield "]}\n";
}

async function* listed(rows: AsyncIterable<Row>): AsyncGenerator<string> {
  let separator = "";
  for await (const row of rows) {
    yield `${separator}${JSON.stringify(row)}`;
    separator = ",";
  }
}

/** One at a time, since a conversation comes with all of its turns. */
async function* rowsOfUser(db: TenantDb, tenantId: TenantId, userId: UserId, table: string, column: string): AsyncGenerator<Row> {
  for (let after = FIRST; ; ) {
    const found = await db.tenant(tenantId, async (tx) => {
      const rows = await sql<{ id: string; row: Row }>`SELECT id, ${rowJson(table)} AS row FROM ${sql.table(table)} AS r
        WHERE tenant_id = ${tenantId} AND ${sql.ref(column)} = ${userId} AND id > ${after} ORDER BY id LIMIT 1`.execute(tx);
      const [row] = rows.rows;
      if (!row) return null;
      for (const child of childrenOf(table))
        if (TABLES[child.name]?.personal?.exported) row.row[child.name] = (await rowsOf(tx, tenantId, child, [row.id])).map(({ row: of }) => of);
      return row;
    });
    if (!found) return;
    yield found.row;
    after = found.id;
  }
}

async function* tasksOf(db: TenantDb, tenantId: TenantId, userId: UserId): AsyncGenerator<Row> {
  for (let after: string | null = FIRST; after !== null; ) {
    const walked: { last: string | null; own: string[] | null } | undefined = await db.tenant(tenantId, async (tx) => {
      const page = await sql<{ last: string | null; own: string[] | null }>`
        WITH page AS (SELECT t.id, t.user_id FROM tasks t WHERE t.tenant_id = ${tenantId} AND t.id > ${after} ORDER BY t.id LIMIT ${WALKED})
        SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, (SELECT array_agg(id ORDER BY id) FROM page WHERE user_id = ${userId}) AS own`.execute(tx);
      return page.rows[0];
    });
    const own = walked?.own ?? [];
    for (let at = 0; at < own.length; at += TASKS) yield* await db.tenant(tenantId, (tx) => wholeTasks(tx, tenantId, own.slice(at, at + TASKS)));
    after = walked?.last ?? null;
  }
}

async function wholeTasks(tx: Tx, tenantId: TenantId, ids: readonly string[]): Promise<Row[]> {
  const tasks = new Map<string, Row>(ids.map((id) => [id, { task_id: publicId("task", id) }]));
  for (const table of TASK_TABLES.filter(({ personal }) => personal.exported)) {
    for (const { of, row } of await rowsOf(tx, tenantId, table, ids)) {
      const task = tasks.get(of);
      if (!task) continue;
      if (table.name === "tasks") Object.assign(task, row);
      else {
        if (table.name === "artifacts")
          row.url = `/v1/tasks/${publicId("task", of)}/artifacts/${encodeURIComponent(String(row.name))}?step=${encodeURIComponent(String(row.step))}`;
        const rows = Array.isArray(task[table.name]) ? (task[table.name] as Row[]) : [];
        task[table.name] = [...rows, row];
      }
    }
  }
  return [...tasks.values()];
}

async function rowsOf(tx: Tx, tenantId: TenantId, { name, column }: Pick<PersonalTable, "name" | "column">, ids: readonly string[]): Promise<{ of: string; row: Row }[]> {
  const found = await sql<{ of: string; row: Row }>`SELECT ${sql.ref(column)}::text AS of, ${rowJson(name)} AS row FROM ${sql.table(name)} AS r
    WHERE tenant_id = ${tenantId} AND ${sql.ref(column)} = ANY (${ids}::uuid[])`.execute(tx);
  return found.rows;
}

/** A row without what the list withholds. */
function rowJson(table: string) {
  return sql`to_jsonb(r) - ${["tenant_id", ...(TABLES[table]?.personal?.withheld ?? [])]}::text[]`;
}
