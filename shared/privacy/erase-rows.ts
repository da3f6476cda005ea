/** The statements that the list of personal data implies. Each changes only what still holds something, so its row count is what it took away. */
import { type RawBuilder, sql } from "kysely";
import type { Tx } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import { type PersonalRows, TABLES } from "./personal-data.ts";

/** A table whose rows are found by an id of a person's own: the person's, or that of one of their tasks. */
export interface PersonalTable {
  name: string;
  column: string;
  personal: PersonalRows;
}

/** The ends of an erasure: they go with its certificate. */
const LAST = new Set(["users", "removed_users", "api_keys", "erasure_requests"]);

function tablesBy(by: "user" | "task"): PersonalTable[] {
  return Object.entries(TABLES).flatMap(([name, { personal }]) => (personal?.rows.by === by ? [{ name, column: personal.rows.column, personal }] : []));
}

/** `tasks` comes last: until then it says what the others belong to. */
export const TASK_TABLES: readonly PersonalTable[] = [...tablesBy("task").filter(({ name }) => name !== "tasks"), ...tablesBy("task").filter(({ name }) => name === "tasks")];
export const USER_TABLES: readonly PersonalTable[] = tablesBy("user").filter(({ name }) => !LAST.has(name));

/** Rows whose parents are in this table; a foreign key takes them along. */
export function childrenOf(table: string): { name: string; column: string }[] {
  return Object.entries(TABLES).flatMap(([name, { personal }]) =>
    personal?.rows.by === "parent" && personal.rows.table === table ? [{ name, column: personal.rows.column }] : [],
  );
}

export const PSEUDONYM = "erased_";

/** What is left of a column, as the list says it. */
function remainderOf(column: string, value: string | null, pseudonym: string | null): RawBuilder<unknown> {
  if (value !== null) return sql.raw(value);
  // Nothing stands in for a row that does not say whose it was.
  return pseudonym === null ? sql`${sql.ref(column)}` : sql`CASE WHEN ${sql.ref(column)} IS NOT NULL THEN ${pseudonym}::text END`;
}

/** True of a row in which something personal is left. */
function holdsSomething({ erasure, columns }: PersonalRows, only: ReadonlySet<string> | null): RawBuilder<boolean> {
  if (erasure === "deleted") return sql`true`;
  const conditions = Object.entries(columns)
    .filter(([column]) => only === null || only.has(column))
    .map(([column, value]) => (value === null ? sql`${sql.ref(column)} NOT LIKE ${`${PSEUDONYM}%`}` : sql`${sql.ref(column)} IS DISTINCT FROM ${sql.raw(value)}`));
  return sql`(${sql.join(conditions, sql` OR `)})`;
}

/** Empties, pseudonymises or deletes the rows that belong to these ids. How many rows that were. */
export async function eraseRows(tx: Tx, { name, column, personal }: PersonalTable, tenantId: TenantId, ids: readonly string[], pseudonym: string | null): Promise<number> {
  const which = sql`tenant_id = ${tenantId} AND ${sql.ref(column)} = ANY (${ids}::uuid[])`;
  if (personal.erasure === "deleted") return changed(await sql`DELETE FROM ${sql.table(name)} WHERE ${which}`.execute(tx));
  const set = Object.entries(personal.columns).map(([target, value]) => sql`${sql.ref(target)} = ${remainderOf(target, value, pseudonym)}`);
  return changed(await sql`UPDATE ${sql.table(name)} SET ${sql.join(set)} WHERE ${which} AND ${holdsSomething(personal, null)}`.execute(tx));
}

/** What retention does: the content goes, and whose it is stays until the row goes. */
export async function emptyContent(tx: Tx, { name, column, personal }: PersonalTable, ids: readonly string[]): Promise<number> {
  const which = sql`${sql.ref(column)} = ANY (${ids}::uuid[])`;
  if (personal.erasure === "deleted") return changed(await sql`DELETE FROM ${sql.table(name)} WHERE ${which}`.execute(tx));
  const content = Object.entries(personal.columns).filter(([target]) => !personal.whose?.includes(target));
  const set = content.map(([target, value]) => sql`${sql.ref(target)} = ${remainderOf(target, value, null)}`);
  return changed(await sql`UPDATE ${sql.table(name)} SET ${sql.join(set)} WHERE ${which} AND ${holdsSomething(personal, new Set(content.map(([target]) => target)))}`.execute(tx));
}

/** Rows of these ids in which something is left. */
export async function countLeft(tx: Tx, { name, column, personal }: PersonalTable, tenantId: TenantId, ids: readonly string[]): Promise<number> {
  const found = await sql<{ left: string }>`SELECT count(*) AS left FROM ${sql.table(name)}
    WHERE tenant_id = ${tenantId} AND ${sql.ref(column)} = ANY (${ids}::uuid[]) AND ${holdsSomething(personal, null)}`.execute(tx);
  return Number(found.rows[0]?.left ?? 0);
}

export async function countRows(tx: Tx, table: string, column: string, ids: readonly string[]): Promise<number> {
  const found = await sql<{ count: string }>`SELECT count(*) AS count FROM ${sql.table(table)} WHERE ${sql.ref(column)} = ANY (${ids}::uuid[])`.execute(tx);
  return Number(found.rows[0]?.count ?? 0);
}

const changed = (result: { numAffectedRows?: bigint }): number => Number(result.numAffectedRows ?? 0n);
