/** What is the subject's, listed in the ledger: their tasks and their conversations. */
import { sql } from "kysely";
import type { PlatformDb } from "../db/database.ts";
import { type ErasureClaim, eraseBatch, markDone } from "./erasure-ledger.ts";

/** Walked in the order of the tenant's own index: no index is kept for every task of everybody so that this is faster. */
const PAGE = 5_000;
const FIRST = "00000000-0000-0000-0000-000000000000";

/** Safe to do again; what was listed stays. */
export async function listSubject(db: PlatformDb, claim: ErasureClaim): Promise<void> {
  if (claim.done.has("list")) return;
  for await (const own of ownTasks(db, claim)) {
    await eraseBatch(db, claim, async (tx) => {
      await sql`INSERT INTO erasure_items (erasure_id, tenant_id, kind, item_id)
        SELECT ${claim.id}::uuid, ${claim.tenantId}::uuid, 'task', t.id FROM tasks t WHERE t.id = ANY (${own}::uuid[])
        -- Of a conversation that was never begun there may still be an entry in a cache.
        UNION SELECT ${claim.id}::uuid, ${claim.tenantId}::uuid, 'conversation', conversation_uuid(t.tenant_id, t.user_id, t.conversation_id)
          FROM tasks t WHERE t.id = ANY (${own}::uuid[]) AND t.conversation_id IS NOT NULL
        ON CONFLICT DO NOTHING`.execute(tx);
      return { result: undefined };
    });
  }
  await eraseBatch(db, claim, async (tx) => {
    await sql`INSERT INTO erasure_items (erasure_id, tenant_id, kind, item_id)
      SELECT ${claim.id}::uuid, ${claim.tenantId}::uuid, 'conversation', c.id FROM conversations c WHERE c.tenant_id = ${claim.tenantId} AND c.user_id = ${claim.userId} ON CONFLICT DO NOTHING`.execute(
      tx,
    );
    return { result: undefined };
  });
  await markDone(db, claim, "list");
}

/** The tasks that say they are the subject's, a page of all of the tenant's tasks at a time. */
export async function* ownTasks(db: PlatformDb, claim: ErasureClaim): AsyncGenerator<string[]> {
  for (let after = FIRST; ; ) {
    const page = await eraseBatch(db, claim, async (tx) => {
      const walked = await sql<{ last: string | null; own: string[] | null }>`
        WITH page AS (SELECT t.id, t.user_id FROM tasks t WHERE t.tenant_id = ${claim.tenantId} AND t.id > ${after} ORDER BY t.id LIMIT ${PAGE})
        SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, (SELECT array_agg(id) FROM page WHERE user_id = ${claim.userId}) AS own`.execute(tx);
      return { result: walked.rows[0] };
    });
    if (!page?.last) return;
    yield page.own ?? [];
    after = page.last;
  }
}

/** The listed ids of a kind, page by page; each page renews the lease. */
export async function* inPages(db: PlatformDb, claim: ErasureClaim, kind: "task" | "conversation", size: number): AsyncGenerator<string[]> {
  for (let after = FIRST; ; ) {
    const ids = await eraseBatch(db, claim, async (tx) => {
      const found = await sql<{ item_id: string }>`SELECT item_id FROM erasure_items
        WHERE erasure_id = ${claim.id} AND kind = ${kind} AND item_id > ${after} ORDER BY item_id LIMIT ${size}`.execute(tx);
      return { result: found.rows.map((row) => row.item_id) };
    });
    const last = ids.at(-1);
    if (last === undefined) return;
    yield ids;
    after = last;
  }
}
