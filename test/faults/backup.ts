/** A base backup, as a low-level API of PostgreSQL makes it: the data folder copied between pg_backup_start and pg_backup_stop, with its log. */
import { cp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { type RunningPostgres, startPostgresOn } from "../support/postgres.ts";

export interface Backup {
  /** Starts a second server on it; resolves with the URL of the run's database there. */
  restore(): Promise<{ url: string; stop(): Promise<void> }>;
  remove(): Promise<void>;
}

export async function backUp(server: RunningPostgres, database: URL): Promise<Backup> {
  const copy = `${server.dataFolder}-backup-${Date.now()}`;
  const client = new pg.Client({ connectionString: database.href });
  await client.connect();
  try {
    await client.query("SELECT pg_backup_start('faults', true)");
    await cp(server.dataFolder, copy, { recursive: true, preserveTimestamps: true });
    const { rows } = await client.query<{ labelfile: string }>("SELECT labelfile FROM pg_backup_stop(false)");
    // What was written meanwhile stands in the log, which is copied last.
    await cp(join(server.dataFolder, "pg_wal"), join(copy, "pg_wal"), { recursive: true, force: true });
    await writeFile(join(copy, "backup_label"), rows[0]?.labelfile ?? "");
    await rm(join(copy, "postmaster.pid"), { force: true });
  } finally {
    await client.end();
  }
  return {
    async restore() {
      const { url, stop } = await startPostgresOn(copy);
      const restored = new URL(url);
      restored.pathname = database.pathname;
      return { url: restored.href, stop };
    },
    remove: () => rm(copy, { recursive: true, force: true }),
  };
}
