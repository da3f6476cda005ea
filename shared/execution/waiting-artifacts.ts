/** Files that wait in PostgreSQL for the object store. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";

const Row = v.object({ artifact_id: v.string(), storage_key: v.string(), media_type: v.string(), sha256: v.string(), bytes: v.instance(Uint8Array), attempts: v.number() });

/** One run takes no longer than this: what is left is due again in the next. */
const RUN_MS = 40_000;
const MAX_FILES = 200;
/** So many in a row say that the store is away as a whole. */
const MAX_FAILURES = 2;

/** One file at a time, since each may be as large as the gateway takes. Twice at once, or again after a crash, only repeats an upload. */
export async function uploadWaiting(
  { db, storage, telemetry }: { db: PlatformDb; storage: ObjectStore; telemetry: Pick<Telemetry, "degraded" | "artifactUploaded"> },
  signal: AbortSignal,
): Promise<void> {
  const until = AbortSignal.any([signal, timeLimit(RUN_MS)]);
  let failures = 0;
  for (let files = 0; files < MAX_FILES && failures < MAX_FAILURES && !until.aborted; files++) {
    const [raw] = await db.call("SELECT * FROM take_due_upload()", []);
    if (!raw) return;
    const file = v.parse(Row, raw);
    try {
      if (createHash("sha256").update(file.bytes).digest("hex") !== file.sha256) throw new Error("a waiting artifact has other bytes than were stored");
      await storage.put(file.storage_key, file.bytes, file.media_type, until);
      FAILPOINT: await failpoint("upload.after_put");
      await db.call("SELECT finish_upload($1)", [file.artifact_id]);
      // Erased while it was on its way; nobody else writes a file of a task that is over.
      const row = await db.platform((tx) => tx.selectFrom("artifacts").select("id").where("id", "=", file.artifact_id).executeTakeFirst());
      if (!row) await storage.delete(file.storage_key);
      telemetry.artifactUploaded(file.attempts);
      failures = 0;
    } catch (error) {
      failures += 1;
      telemetry.degraded("artifact store", error);
    }
  }
}
