/** The list of personal data, held against the database as the migrations make it. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { TABLES, type TableEntry } from "../../shared/privacy/personal-data.ts";
import { freshDatabase } from "../support/postgres.ts";

const LIST = "shared/privacy/personal-data.ts";
let client: pg.Client;
let columns: Map<string, string[]>;

beforeAll(async () => {
  client = new pg.Client({ connectionString: await freshDatabase(inject("postgresUrl")) });
  await client.connect();
  const { rows } = await client.query<{ table: string; columns: string[] }>(
    `SELECT table_name AS table, array_agg(column_name::text) AS columns FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
      WHERE table_schema = 'public' AND table_type = 'BASE TABLE' GROUP BY table_name`,
  );
  columns = new Map(rows.map((row) => [row.table, row.columns]));
});
afterAll(() => client?.end());

const classesOf = ({ personal, organisation = [], free }: TableEntry) => ({ personal: Object.keys(personal?.columns ?? {}), organisation, free });

describe("the list of personal data", () => {
  it("says of every column of the database whether personal data may stand in it, and once", () => {
    const wrong: string[] = [];
    for (const [table, present] of [...columns].sort()) {
      const entry = TABLES[table];
      if (!entry) {
        wrong.push(`The table ${table} is new. Add it to TABLES in ${LIST}: which of its columns (${present.join(", ")}) may hold who somebody is or what they wrote?`);
        continue;
      }
      const classes = classesOf(entry);
      for (const column of present) {
        const found = Object.entries(classes).filter(([, names]) => names.includes(column));
        if (found.length === 0)
          wrong.push(`${table}.${column} is new. Put it into \`personal\` (and let erasure empty or delete it), \`organisation\` or \`free\` of ${table} in ${LIST}.`);
        if (found.length > 1) wrong.push(`${table}.${column} stands in ${found.map(([name]) => name).join(" and ")} in ${LIST}: it can be only one of them.`);
      }
    }
    expect(wrong.join("\n")).toBe("");
  });

  it("names no table and no column that is not there", () => {
    const named = Object.entries(TABLES).flatMap(([table, entry]) =>
      Object.values(classesOf(entry))
        .flat()
        .map((column) => `${table}.${column}`),
    );
    const present = new Set([...columns].flatMap(([table, names]) => names.map((column) => `${table}.${column}`)));
    expect(named.filter((column) => !present.has(column))).toEqual([]);
  });

  it("finds a person's rows by columns that are there, and says in SQL what is left of each", async () => {
    for (const [table, { personal }] of Object.entries(TABLES)) {
      if (!personal) continue;
      if (personal.rows.by === "parent") expect(personal.erasure, table).toBe("deleted");
      else expect(columns.get(table), table).toContain(personal.rows.column);
      for (const [column, remainder] of Object.entries(personal.columns)) {
        if (personal.erasure === "emptied") await client.query(`UPDATE ${pg.escapeIdentifier(table)} SET ${pg.escapeIdentifier(column)} = ${remainder} WHERE false`);
        else expect(remainder, `${table}.${column} is ${personal.erasure}`).toBeNull();
      }
    }
  });

  it("deletes rows with their parents only where a foreign key does", async () => {
    for (const [table, { personal }] of Object.entries(TABLES)) {
      if (personal?.rows.by !== "parent") continue;
      const { rows } = await client.query("SELECT 1 FROM pg_constraint WHERE contype = 'f' AND confdeltype = 'c' AND conrelid = $1::regclass AND confrelid = $2::regclass", [
        table,
        personal.rows.table,
      ]);
      expect(rows, `${table} goes with ${personal.rows.table}`).toHaveLength(1);
    }
  });
});
