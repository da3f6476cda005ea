/**
 * After a backup was restored: `npm run erasure:replay`, with DATABASE_URL and the bucket's settings, before callers are let in again. Everybody who
 * was erased since the backup was made, and is back with it, is erased again; `user-erase` does the work. `retention-purge` looks every hour too.
 */
import { pathToFileURL } from "node:url";
import { openDatabase } from "../shared/db/database.ts";
import { readConfig, required } from "../shared/host/config.ts";
import { replayTombstones } from "../shared/privacy/tombstones.ts";
import { openObjectStore } from "../shared/storage/object-store.ts";
import { asCommand } from "./command.ts";

const USAGE = `npm run erasure:replay

Erases again who came back with a backup. It needs DATABASE_URL and the bucket's settings (S3_ENDPOINT, S3_BUCKET, the usual AWS variables).`;

export async function replay(env: Record<string, string | undefined>): Promise<{ tombstones: number; reopened: number }> {
  const config = readConfig(env);
  const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
  const storage = openObjectStore({
    endpoint: config.S3_ENDPOINT,
    bucket: config.S3_BUCKET,
    region: config.AWS_REGION,
    accessKeyId: config.AWS_ACCESS_KEY_ID,
    secretAccessKey: config.AWS_SECRET_ACCESS_KEY,
  });
  try {
    return await replayTombstones(db, storage);
  } finally {
    storage.close();
    await db.close();
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await asCommand(USAGE, async () => {
    const { tombstones, reopened } = await replay(process.env);
    console.log(`${tombstones} people were erased before; ${reopened} came back with the backup and are erased again.`);
    return 0;
  });
