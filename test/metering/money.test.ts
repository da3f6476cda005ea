/** `AAU_MONEY_TASKS` for more of them; `npm run money` prints what it compares. */
import { afterAll, beforeAll, expect, inject, it } from "vitest";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { freshDatabase } from "../support/postgres.ts";
import { compareMoney } from "./compare-money.ts";
import { runMoney, seedMoney } from "./money-run.ts";

let db: Database;
beforeAll(async () => {
  db = await openDatabase({ url: await freshDatabase(inject("postgresUrl")), driver: "pg", poolSize: 8 });
});
afterAll(() => db?.close());

it("of randomised tasks, the lines of the invoices come to the price of what the provider counted for billable work, to the micro-dollar", async () => {
  const tenants = await seedMoney(db);
  await runMoney(db, tenants, Number(process.env.AAU_MONEY_TASKS ?? 1_000), 20_261_128);
  const { tenants: compared, problems } = await compareMoney(db, tenants);
  expect(problems).toEqual([]);
  expect(compared.every(({ total }) => total > 0n)).toBe(true);
  const kinds = tenants.flatMap((tenant) => [...tenant.kinds.keys()]);
  expect(new Set(kinds).size).toBe(11);
  expect(compared.reduce((sum, { overage }) => sum + overage, 0)).toBeGreaterThan(0);
});
