/** Exchanges as the end of a task writes them, without running one. */
import { sql } from "kysely";
import type { Database } from "../../shared/db/database.ts";
import { newId, type TenantId } from "../../shared/ids.ts";

export interface Exchange {
  tenantId: TenantId;
  userId: string | null;
  name?: string | null;
  command?: string;
  result?: string | null;
  status?: string;
}

/** True: the conversation overflowed. Written under the tenant's role, as `settle_task` does. */
export async function append(
  db: Database,
  { tenantId, userId, name = "chat", command = "What is new?", result = "Nothing at all.", status = "success" }: Exchange,
): Promise<boolean> {
  const task = JSON.stringify({ id: newId("task"), tenant_id: tenantId, user_id: userId, conversation_id: name, input: { command, attachments: [] } });
  const { rows } = await db.tenant(tenantId, (tx) =>
    sql<{
      overflowed: boolean;
    }>`SELECT append_conversation_turns(jsonb_populate_record(NULL::tasks, ${task}::jsonb), ${status}, ${JSON.stringify({ result })}::jsonb) AS overflowed`.execute(tx),
  );
  return rows[0]?.overflowed ?? false;
}

export async function appendMany(db: Database, exchange: Exchange, from: number, to: number): Promise<boolean[]> {
  const overflowed: boolean[] = [];
  for (let n = from; n <= to; n++)
    overflowed.push(await append(db, { ...exchange, command: `Question number ${n} is about topic ${n}.`, result: `Answer number ${n} is about topic ${n}.` }));
  return overflowed;
}
