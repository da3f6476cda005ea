/**
 * Randomised tasks through admission, journal, settlement and the closing of the month, and what they must cost beside: `npm run money -- --tasks 10000
 * --seed 1`. It starts a PostgreSQL of its own, prints what it compared, and ends with 1 when a sum is not exact.
 */
import { parseArgs } from "node:util";
import { openDatabase } from "../shared/db/database.ts";
import { formatUsd } from "../shared/money.ts";
import { compareMoney } from "../test/metering/compare-money.ts";
import { runMoney, seedMoney } from "../test/metering/money-run.ts";
import { startPostgres } from "../test/support/postgres.ts";
import { asCommand, wholeNumber } from "./command.ts";
import { migrate } from "./migrate.ts";

const USAGE = `npm run money -- [options]

  --tasks <number>   10000 unless said
  --seed <number>    1 unless said`;

await asCommand(USAGE, async (args) => {
  const { values } = parseArgs({ args, options: { tasks: { type: "string", default: "10000" }, seed: { type: "string", default: "1" } } });
  const [tasks, seed] = [wholeNumber("tasks", values.tasks), wholeNumber("seed", values.seed)];
  const postgres = await startPostgres();
  const db = await openDatabase({ url: postgres.url, driver: "pg", poolSize: 8 });
  let problems: string[] = [];
  try {
    await migrate(postgres.url);
    const startedAt = performance.now();
    const tenants = await seedMoney(db);
    await runMoney(db, tenants, tasks, seed);
    const compared = await compareMoney(db, tenants);
    problems = compared.problems;
    for (const { tier, tasks: count, billable, overage, modelUsage, total, expected } of compared.tenants)
      console.log(
        `${tier.padEnd(13)} ${String(count).padStart(6)} tasks, ${String(billable).padStart(6)} billable executions, ${String(overage).padStart(5)} overage; models ${formatUsd(modelUsage)}, invoice ${formatUsd(total)}, worked out beside ${formatUsd(expected)}`,
      );
    const kinds = new Map<string, number>();
    for (const tenant of tenants) for (const [kind, count] of tenant.kinds) kinds.set(kind, (kinds.get(kind) ?? 0) + count);
    console.log([...kinds].map(([kind, count]) => `${count} ${kind}`).join(", "));
    console.log(`${tasks} tasks with seed ${seed} in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  } finally {
    await db.close();
    await postgres.stop();
  }
  for (const problem of problems) console.error(problem);
  console.log(problems.length === 0 ? "Every sum is exact." : `${problems.length} sums are not.`);
  return problems.length === 0 ? 0 : 1;
});
