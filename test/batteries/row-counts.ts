/** Rows of every table, seen past row-level security: a refused request must leave none. */
import pg from "pg";
import { expect } from "vitest";

export async function rowCounts(databaseUrl: string): Promise<Record<string, number>> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await countRows(client);
  } finally {
    await client.end();
  }
}

/** For those who count often. */
export async function countRows(client: pg.Client): Promise<Record<string, number>> {
  const { rows: tables } = await client.query<{ name: string }>("SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
  const counts = tables.map(({ name }) => `SELECT '${name}' AS name, count(*)::int AS count FROM ${name}`).join(" UNION ALL ");
  const { rows } = await client.query<{ name: string; count: number }>(counts);
  return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
}

/** Runs the work and holds every table to the number of rows it had. */
export async function expectNothingWritten(databaseUrl: string, work: () => Promise<void>): Promise<void> {
  const before = await rowCounts(databaseUrl);
  await work();
  expect(await rowCounts(databaseUrl)).toEqual(before);
}
