/**
 * 5,000 deliveries to 50 endpoints, of which 20 are dead, slow, flapping, redirecting, endless, while the sender is killed: `npm run webhooks:storm --
 * [--events 100] [--tenants 10] [--pace 40] [--kills 2]`. Exit code 0 only when every healthy endpoint was told every event.
 */
import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres.ts";
import { runStorm } from "../test/webhooks/storm.ts";
import { asCommand, wholeNumber } from "./command.ts";

const USAGE = `npm run webhooks:storm -- [options]

  --events <number>    of each tenant, 100 unless said
  --tenants <number>   of five endpoints each, 10 unless said
  --pace <number>      events a second, 40 unless said
  --kills <number>     of the sender, 2 unless said`;

await asCommand(USAGE, async (args) => {
  const option = (fallback: string) => ({ type: "string", default: fallback }) as const;
  const { values } = parseArgs({ args, options: { events: option("100"), tenants: option("10"), pace: option("40"), kills: option("2") } });
  const shape = {
    tenants: wholeNumber("tenants", values.tenants),
    endpointsEach: 5,
    eventsEach: wholeNumber("events", values.events),
    pace: wholeNumber("pace", values.pace),
    kills: wholeNumber("kills", values.kills),
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
  const postgres = await startPostgres({ durable: true });
  const report = await runStorm({ databaseUrl: postgres.url, ...shape }, (line) => console.log(line)).finally(() => postgres.stop());
  console.log(report);
  process.exit(report.lost === 0 && report.badSignatures === 0 && report.canaryConnections === 0 ? 0 : 1);
});
