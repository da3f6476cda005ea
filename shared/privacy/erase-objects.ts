/** Files of a person's tasks: the object first, then its row, so that whoever is killed between leaves a row that says what to delete again. */
import { sql } from "kysely";
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import { type ErasureClaim, eraseBatch } from "./erasure-ledger.ts";

const AT_ONCE = 16;
/** Longer than a put of the gateway (12 s) or of the uploader (40 s) may take: what was on its way when the last task ended has arrived. */
const GATEWAY_PUT_MS = 15_000;
const UPLOADER_PUT_MS = 60_000;

/** Milliseconds until no file of the subject can still be on its way to the store. */
export async function uploadsSettleInMs(db: PlatformDb, claim: ErasureClaim): Promise<number> {
  const found = await db.platform((tx) =>
    sql<{ ms: string | null }>`SELECT greatest(
        (SELECT extract(epoch FROM max(t.completed_at) - now()) * 1000 + ${GATEWAY_PUT_MS} FROM erasure_items i JOIN tasks t ON t.id = i.item_id
          WHERE i.erasure_id = ${claim.id} AND i.kind = 'task' AND t.started_at IS NOT NULL),
        -- take_due_upload puts the next attempt off by what follows from the attempts before.
        (SELECT extract(epoch FROM max(u.next_attempt_at - least(interval '10 minutes', interval '15 seconds' * power(2, least(u.attempts - 1, 6)))) - now()) * 1000 + ${UPLOADER_PUT_MS}
          FROM erasure_items i JOIN artifacts a ON a.task_id = i.item_id JOIN artifact_uploads u ON u.artifact_id = a.id
          WHERE i.erasure_id = ${claim.id} AND i.kind = 'task' AND u.attempts > 0)) AS ms`.execute(tx),
  );
  return Math.max(0, Math.ceil(Number(found.rows[0]?.ms ?? 0)));
}

interface Listed {
  id: string;
  storage_key: string;
  is_waiting: boolean;
}

/** The artifacts of these tasks: in the store, and those that wait for it in PostgreSQL. */
export async function eraseArtifacts(db: PlatformDb, storage: ObjectStore, claim: ErasureClaim, taskIds: readonly string[]): Promise<void> {
  const { rows } = await db.platform((tx) =>
    sql<Listed>`SELECT a.id, a.storage_key, a.state = 'pending' AS is_waiting FROM artifacts a WHERE a.tenant_id = ${claim.tenantId} AND a.task_id = ANY (${taskIds}::uuid[])`.execute(
      tx,
    ),
  );
  for (let at = 0; at < rows.length; at += AT_ONCE) {
    const some = rows.slice(at, at + AT_ONCE);
    await Promise.all(some.map(({ storage_key }) => storage.delete(storage_key)));
    FAILPOINT: await failpoint("erase.after_object");
    await eraseBatch(db, claim, async (tx) => {
      const gone = await sql<{ id: string }>`DELETE FROM artifacts WHERE tenant_id = ${claim.tenantId} AND id = ANY (${some.map(({ id }) => id)}::uuid[]) RETURNING id`.execute(tx);
      const waiting = new Set(some.filter(({ is_waiting }) => is_waiting).map(({ id }) => id));
      const waited = gone.rows.filter(({ id }) => waiting.has(id)).length;
      return { counts: { artifacts: gone.rows.length - waited, artifacts_waiting: waited }, result: undefined };
    });
  }
}

/** Objects in the tenant's part of the bucket that belong to the subject's tasks, whether a row names them or not. */
export async function* objectsOfSubject(db: PlatformDb, storage: ObjectStore, claim: ErasureClaim): AsyncGenerator<string[]> {
  const prefix = `${claim.tenantId}/`;
  for (let after: string | null = null; ; ) {
    const page = await storage.list(prefix, after);
    const last = page.at(-1);
    if (!last) return;
    after = last.key;
    const taskOf = new Map(page.flatMap(({ key }) => (UUID.test(key.split("/")[2] ?? "") ? [[key, key.split("/")[2] ?? ""] as const] : [])));
    const own = await eraseBatch(db, claim, async (tx) => {
      const found = await sql<{ item_id: string }>`SELECT item_id FROM erasure_items
        WHERE erasure_id = ${claim.id} AND kind = 'task' AND item_id = ANY (${[...new Set(taskOf.values())]}::uuid[])`.execute(tx);
      return { result: new Set(found.rows.map((row) => row.item_id)) };
    });
    yield [...taskOf].filter(([, task]) => own.has(task)).map(([key]) => key);
  }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** What a gateway that was killed between the put and the row has left. */
export async function eraseOrphans(db: PlatformDb, storage: ObjectStore, claim: ErasureClaim): Promise<void> {
  for await (const keys of objectsOfSubject(db, storage, claim)) {
    for (let at = 0; at < keys.length; at += AT_ONCE) await Promise.all(keys.slice(at, at + AT_ONCE).map((key) => storage.delete(key)));
    if (keys.length > 0) await eraseBatch(db, claim, async () => ({ counts: { objects_without_a_row: keys.length }, result: undefined }));
  }
}
