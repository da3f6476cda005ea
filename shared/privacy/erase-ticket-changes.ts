/**
 * A ticket's row is found by the task that made it, yet any task of the tenant may change any ticket. What a person wrote on the tickets of others is
 * found by the history: where the last change that names a column is one of theirs, what stands in the column are their words. The history keeps
 * which columns a change named after its words are gone, so the look afterwards finds the same.
 */
import { type RawBuilder, sql } from "kysely";
import type { Tx } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

/** The columns that a change may write words into, each with what is left of it. */
const WORDS: Readonly<Record<string, string>> = { assignee: "NULL", team: "NULL", component: "NULL", labels: "'{}'" };

/** For each ticket that these tasks have changed and that still holds their words: which columns do. */
function changedBy(tenantId: TenantId, tasks: readonly string[]): RawBuilder<unknown> {
  const holds = Object.entries(WORDS).map(([column, left]) => sql`l.key = ${column} AND t.${sql.raw(column)} IS DISTINCT FROM ${sql.raw(left)}`);
  return sql`SELECT l.number, array_agg(l.key) AS columns FROM (
      SELECT DISTINCT ON (e.number, k.key) e.number, k.key, e.task_id FROM ticket_events e, jsonb_object_keys(e.data) k(key)
        WHERE e.tenant_id = ${tenantId} AND e.type = 'changed'
          AND e.number IN (SELECT o.number FROM ticket_events o WHERE o.tenant_id = ${tenantId} AND o.task_id = ANY (${tasks}::uuid[]) AND o.type = 'changed')
        ORDER BY e.number, k.key, e.id DESC) l
    JOIN tickets t ON t.tenant_id = ${tenantId} AND t.number = l.number
    WHERE l.task_id = ANY (${tasks}::uuid[]) AND (${sql.join(holds, sql` OR `)}) GROUP BY l.number`;
}

/** How many tickets these tasks' words were taken from. */
export async function eraseTicketChanges(tx: Tx, tenantId: TenantId, tasks: readonly string[]): Promise<number> {
  // Locked first and looked at afterwards, so that what somebody else sets meanwhile is seen, and stays.
  await sql`SELECT FROM tickets t WHERE t.tenant_id = ${tenantId} AND t.number IN (
      SELECT e.number FROM ticket_events e WHERE e.tenant_id = ${tenantId} AND e.task_id = ANY (${tasks}::uuid[]) AND e.type = 'changed') ORDER BY t.number FOR UPDATE`.execute(tx);
  const set = Object.entries(WORDS).map(([column, left]) => sql`${sql.raw(column)} = CASE WHEN ${column} = ANY (c.columns) THEN ${sql.raw(left)} ELSE t.${sql.raw(column)} END`);
  const emptied = await sql`UPDATE tickets t SET ${sql.join(set)} FROM (${changedBy(tenantId, tasks)}) c WHERE t.tenant_id = ${tenantId} AND t.number = c.number`.execute(tx);
  return Number(emptied.numAffectedRows ?? 0n);
}

/** Tickets on which words of these tasks still stand. */
export async function countTicketChanges(tx: Tx, tenantId: TenantId, tasks: readonly string[]): Promise<number> {
  const left = await sql<{ count: string }>`SELECT count(*) AS count FROM (${changedBy(tenantId, tasks)}) c`.execute(tx);
  return Number(left.rows[0]?.count ?? 0);
}
