import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { expect, inject, it } from "vitest";
import { migrate } from "../../scripts/migrate.ts";
import { freshDatabase } from "../support/postgres.ts";

const MIGRATIONS = fileURLToPath(new URL("../../migrations", import.meta.url));
/** Longer than a migration waits at a time. */
const HELD_MS = 4_500;

it("a migration that needs a table in use lets everybody else read it, and gets there when it is free", async () => {
  const url = await freshDatabase(inject("postgresUrl"));
  const folder = await mkdtemp(join(tmpdir(), "aau-migrations-"));
  await cp(MIGRATIONS, folder, { recursive: true });
  await writeFile(join(folder, "9999_wider.sql"), "-- Why: a test.\nALTER TABLE tasks ADD COLUMN wider text;\n");
  const [holder, reader] = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })];
  await Promise.all([holder.connect(), reader.connect()]);
  try {
    await holder.query("BEGIN");
    await holder.query("SELECT count(*) FROM tasks");
    const migrated = migrate(url, folder);
    let slowestMs = 0;
    for (const until = performance.now() + HELD_MS; performance.now() < until; await delay(20)) {
      const askedAt = performance.now();
      await reader.query("SELECT count(*) FROM tasks");
      slowestMs = Math.max(slowestMs, performance.now() - askedAt);
    }
    await holder.query("COMMIT");
    expect(await migrated).toEqual(["9999_wider"]);
    expect(slowestMs).toBeLessThan(3_500);
  } finally {
    await Promise.all([holder.end(), reader.end()]);
    await rm(folder, { recursive: true, force: true });
  }
}, 30_000);
