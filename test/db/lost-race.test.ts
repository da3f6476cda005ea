import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { freshDatabase } from "../support/postgres.ts";

describe("two transactions that lock in opposite order", () => {
  let db: Database;
  beforeAll(async () => {
    db = await openDatabase({ url: await freshDatabase(inject("postgresUrl")), driver: "pg", poolSize: 4 });
    await db.platform((tx) => sql`SELECT 1`.execute(tx));
  });
  afterAll(() => db.close());

  it("both take place, since the one that PostgreSQL gives up runs again", async () => {
    const tenants = ["11111111-1111-7111-8111-111111111111", "22222222-2222-7222-8222-222222222222"] as const;
    await db.platform((tx) =>
      tx
        .insertInto("tenants")
        .values(tenants.map((id) => ({ id, name: "", plan_tier: "starter" as const })))
        .execute(),
    );
    const arrived: (() => void)[] = [];
    const both = Promise.all(tenants.map(() => new Promise<void>((resolve) => arrived.push(resolve))));
    let runs = 0;
    const write = (own: number) =>
      db.platform(async (tx) => {
        runs += 1;
        const [first, second] = own === 0 ? tenants : [tenants[1], tenants[0]];
        await sql`UPDATE tenants SET name = name || ${String(own)} WHERE id = ${first}`.execute(tx);
        arrived[own]?.();
        await both;
        await sql`UPDATE tenants SET name = name || ${String(own)} WHERE id = ${second}`.execute(tx);
      });
    await Promise.all([write(0), write(1)]);
    const names = await db.platform((tx) =>
      tx
        .selectFrom("tenants")
        .select("name")
        .where("id", "in", [...tenants])
        .execute(),
    );
    expect(names.map(({ name }) => [...name].sort().join(""))).toEqual(["01", "01"]);
    expect(runs).toBe(3);
  });
});
