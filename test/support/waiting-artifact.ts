/** Makes the artifacts of a finished task look as if the object store had not taken them. */
import { sql } from "kysely";
import type { PlatformDb } from "../../shared/db/database.ts";

export async function keepWaiting(db: PlatformDb, taskId: string): Promise<void> {
  await db.platform(async (tx) => {
    await sql`INSERT INTO artifact_uploads (artifact_id, tenant_id, task_id, bytes) SELECT id, tenant_id, task_id, convert_to('it waits', 'UTF8') FROM artifacts WHERE task_id = ${taskId}`.execute(
      tx,
    );
    await sql`UPDATE artifacts SET state = 'pending', sha256 = encode(sha256(convert_to('it waits', 'UTF8')), 'hex') WHERE task_id = ${taskId}`.execute(tx);
  });
}
