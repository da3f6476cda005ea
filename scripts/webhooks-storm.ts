/**
 * 5,000 deliveries to 50 endpoints, of which 20 are dead, slow, flapping, redirecting, endless, while the sender is killed: `npm run webhooks:storm --
 * [--events 100] [--tenants 10] [--pace 40] [--kills 2]`. Exit code 0 only when every healthy endpoint was told every event.
 */
import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres.ts";
import { runStorm } from "../test/webhooks/storm.ts";

const number = (text: string | undefined, fallback: number) => (text === undefined ? fallback : Number(text));
const { values } = parseArgs({ options: { events: { type: "string" }, tenants: { type: "string" }, pace: { type: "string" }, kills: { type: "string" } } });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
const postgres = await startPostgres({ durable: true });
const report = await runStorm(
  {
    databaseUrl: postgres.url,
    tenants: number(values.tenants, 10),
    endpointsEach: 5,
    eventsEach: number(values.events, 100),
    pace: number(values.pace, 40),
    kills: number(values.kills, 2),
  },
  (line) => console.log(line),
).finally(() => postgres.stop());
console.log(report);
process.exit(report.lost === 0 && report.badSignatures === 0 && report.canaryConnections === 0 ? 0 : 1);
