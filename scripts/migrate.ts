/** Brings a database up to date: `npm run migrate`, with DATABASE_URL of a role that may create tables and roles. */
import { existsSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runner } from "node-pg-migrate";
import { publishEnvelopeSchemas } from "./envelope-schemas.ts";

/** Beside the sources in the repository, beside the bundle in the image. */
function migrationsFolder(): string {
  const candidates = ["../migrations", "./migrations"].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const found = candidates.find(existsSync);
  if (!found) throw new Error("The migrations folder is missing.");
  return found;
}

/** Applies what is missing, in one transaction and under an advisory lock, and publishes the envelopes; names what it applied. */
export async function migrate(databaseUrl: string): Promise<string[]> {
  const applied = await runner({
    databaseUrl: { connectionString: databaseUrl, connectionTimeoutMillis: 10_000 },
    dir: migrationsFolder(),
    direction: "up",
    migrationsTable: "schema_migrations",
    checkOrder: true,
    singleTransaction: true,
    logger: { debug() {}, info() {}, warn: console.warn, error: console.error },
  });
  await publishEnvelopeSchemas(databaseUrl);
  return applied.map((migration) => migration.name);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const url = process.env.DATABASE_URL;
  if (!url) {
    console.error("DATABASE_URL is not set.");
    process.exitCode = 1;
  } else {
    const applied = await migrate(url);
    console.log(applied.length === 0 ? "The database is up to date." : `Applied ${applied.join(", ")}.`);
  }
}
