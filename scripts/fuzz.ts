/**
 * Sends what nobody should: `npm run fuzz -- [--requests N] [--seed S]`. Requests for every operation are drawn from the OpenAPI document and damaged; whatever
 * breaks a rule is printed as the smallest request that does, in the form of a curl line. It starts a PostgreSQL and a Redis of its own, and ends with 1 when
 * anything was found.
 */
import { parseArgs } from "node:util";
import { linesOf, runFuzz } from "../test/fuzz/run.ts";
import { startWithTemplate } from "../test/support/postgres.ts";
import { asCommand, wholeNumber } from "./command.ts";

const USAGE = `npm run fuzz -- [options]

  --requests <number>   100000 unless said
  --seed <number>       the same requests as then; drawn when it is not given`;

await asCommand(USAGE, async (args) => {
  const { values } = parseArgs({ args, options: { requests: { type: "string", default: "100000" }, seed: { type: "string" } } });
  const requests = wholeNumber("requests", values.requests);
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber("seed", values.seed);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
  console.log(`${requests} requests with seed ${seed}`);
  const postgres = await startWithTemplate();
  const report = await runFuzz({ requests, seed, postgresUrl: postgres.url, say: (line) => console.log(line) }).finally(() => postgres.stop());
  for (const line of linesOf(report)) console.log(line);
  process.exit(report.failures.length === 0 ? 0 : 1);
});
