/**
 * Sends what nobody should: `npm run fuzz -- [--requests N] [--seed S]`. Requests for every operation are drawn from the OpenAPI document and damaged; whatever
 * breaks a rule is printed as the smallest request that does, in the form of a curl line. It starts a PostgreSQL and a Redis of its own, and ends with 1 when
 * anything was found.
 */
import { parseArgs } from "node:util";
import { linesOf, runFuzz } from "../test/fuzz/run.ts";
import { startWithTemplate } from "../test/support/postgres.ts";

const { values } = parseArgs({ options: { requests: { type: "string", default: "100000" }, seed: { type: "string" } } });
const [requests, seed] = [Number(values.requests), values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)];
if (!Number.isSafeInteger(requests) || !Number.isSafeInteger(seed)) throw new Error("--requests and --seed must be whole numbers");
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
console.log(`${requests} requests with seed ${seed}`);
const postgres = await startWithTemplate();
const report = await runFuzz({ requests, seed, postgresUrl: postgres.url, say: (line) => console.log(line) }).finally(() => postgres.stop());
for (const line of linesOf(report)) console.log(line);
process.exit(report.failures.length === 0 ? 0 : 1);
