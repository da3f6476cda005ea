/** Brings a database up to date: `npm run migrate`, with DATABASE_URL of a role that may create tables and roles. */
import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runner } from "node-pg-migrate";
import { sqlState } from "../shared/db/database.ts";
import { ConfigError } from "../shared/host/config.ts";
import { asCommand } from "./command.ts";
import { publishEnvelopeSchemas } from "./envelope-schemas.ts";

const USAGE = `npm run migrate

Brings the database at DATABASE_URL up to date; the role must be able to create tables and roles.`;

/** Beside the sources in the repository, beside the bundle in the image. */
function migrationsFolder(): string {
  const candidates = ["../migrations", "./migrations"].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const found = candidates.find(existsSync);
  if (!found) throw new Error("The migrations folder is missing.");
  return found;
}

/**
 * A table that is in use is waited for no longer: behind a statement that waits for it, everybody else would. Longer than that nothing stands
 * still, and the whole of it is tried again.
 */
const LOCK_TIMEOUT_MS = 2_000;
const MAX_TRIES = 30;
const REST_MS = 1_000;
const LOCK_NOT_AVAILABLE = "55P03";

/** Applies what is missing of `folder`, in one transaction and under an advisory lock, and publishes the envelopes; names what it applied. */
export async function migrate(databaseUrl: string, folder = migrationsFolder()): Promise<string[]> {
  const applied = await withoutWaiting(() =>
    runner({
      databaseUrl: { connectionString: databaseUrl, connectionTimeoutMillis: 10_000, options: `-c lock_timeout=${LOCK_TIMEOUT_MS}` },
      dir: folder,
      direction: "up",
      migrationsTable: "schema_migrations",
      checkOrder: true,
      singleTransaction: true,
      logger: { debug() {}, info() {}, warn: console.warn, error: console.error },
    }),
  );
  await publishEnvelopeSchemas(databaseUrl);
  return applied.map((migration) => migration.name);
}

async function withoutWaiting<T>(work: () => Promise<T>, tries = 1): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (sqlState(error) !== LOCK_NOT_AVAILABLE || tries === MAX_TRIES) throw error;
    console.warn(`A table is in use; try ${tries + 1} of ${MAX_TRIES} follows.`);
    await delay(REST_MS);
    return withoutWaiting(work, tries + 1);
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await asCommand(USAGE, async () => {
    const url = process.env.DATABASE_URL;
    if (!url) throw new ConfigError("DATABASE_URL is not set.");
    const applied = await migrate(url);
    console.log(applied.length === 0 ? "The database is up to date." : `Applied ${applied.join(", ")}.`);
    return 0;
  });
