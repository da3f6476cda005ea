/**
 * Whether the clock tells an id of another tenant from an id of nothing: `npm run foreign-ids -- [--samples 2000]`. It starts a PostgreSQL and a Redis of
 * its own, and ends with 1 when the medians of an operation differ by 5 % or more; on a busy machine, noise may do that too.
 */
import { parseArgs } from "node:util";
import { compareForeignTimes } from "../test/batteries/foreign-times.ts";
import { startWithTemplate } from "../test/support/postgres.ts";
import { asCommand, wholeNumber } from "./command.ts";

const USAGE = `npm run foreign-ids -- [options]

  --samples <number>   requests of each kind for each operation, 2000 unless said`;
const MAX_DIFFERENCE = 0.05;

await asCommand(USAGE, async (args) => {
  const { values } = parseArgs({ args, options: { samples: { type: "string", default: "2000" } } });
  const samples = wholeNumber("samples", values.samples);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
  console.log(`medians of ${samples} requests: another tenant's id, an id of nothing`);
  const postgres = await startWithTemplate();
  const apart = ({ foreignMs, randomMs }: { foreignMs: number; randomMs: number }) => foreignMs / randomMs - 1;
  const all = await compareForeignTimes(postgres.url, samples, (times) =>
    console.log(
      `  ${times.operation.padEnd(22)} ${times.foreignMs.toFixed(3)} ms  ${times.randomMs.toFixed(3)} ms  ${apart(times) < 0 ? "−" : "+"}${Math.abs(apart(times) * 100).toFixed(1)} %`,
    ),
  ).finally(() => postgres.stop());
  const telling = all.filter((times) => Math.abs(apart(times)) >= MAX_DIFFERENCE);
  console.log(telling.length === 0 ? "No operation tells them apart." : `Told apart: ${telling.map(({ operation }) => operation).join(", ")}`);
  process.exit(telling.length === 0 ? 0 : 1);
});
