import { fileURLToPath } from "node:url";
import pg from "pg";
import { type Child, freePort, startChild, untilReady } from "./child.ts";

export interface LocalPostgres {
  url: string;
  child: Child;
  stop(): Promise<void>;
}

/** PGlite with its data in `dir`. */
export async function startPglite(dir: string, logFile?: string): Promise<LocalPostgres> {
  const port = await freePort();
  const child = startChild({
    name: "postgres",
    command: process.execPath,
    args: ["--import", "tsx", fileURLToPath(new URL("./pglite-server.ts", import.meta.url)), dir, String(port)],
    env: process.env,
    logFile,
  });
  const url = `postgresql://postgres:postgres@127.0.0.1:${port}/postgres?prepare=off`;
  await untilReady("PostgreSQL (PGlite)", child, () => checkPostgres(url), 60_000);
  return { url, child, stop: () => child.stop() };
}

/** Throws unless a statement comes back. */
export async function checkPostgres(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 3_000, query_timeout: 5_000 });
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query("SELECT 1");
  } finally {
    await client.end();
  }
}
