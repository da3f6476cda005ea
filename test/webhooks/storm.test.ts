import { expect, inject, it } from "vitest";
import { freshDatabase } from "../support/postgres.ts";
import { runStorm } from "./storm.ts";

it("tells every healthy endpoint every event, signed, beside the dead, the slow and the endless, over the death of the sender", { timeout: 240_000 }, async () => {
  const report = await runStorm({ databaseUrl: await freshDatabase(inject("postgresUrl")), tenants: 9, endpointsEach: 5, eventsEach: 4, pace: 20, kills: 1 });
  expect(report).toMatchObject({ deliveries: 180, kills: 1, lost: 0, badSignatures: 0, canaryConnections: 0 });
});
