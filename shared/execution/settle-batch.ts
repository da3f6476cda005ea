/** Settlements that wait for the database travel together (`settle_tasks`). */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { inBatches, perPool } from "../db/in-batches.ts";

/** What `settle_tasks` reads of one task; the last four are JSON texts. */
export interface SettleRequest {
  tenant: string;
  id: string;
  lease: string;
  in_conversation: boolean;
  status: string;
  result: string;
  error: string;
  steps: string;
  events: string;
}

const LARGE_RESULT = 16 * 1024;
const Rows = v.array(v.object({ place: v.number(), settled: v.boolean(), overflowed: v.boolean(), rings: v.array(v.string()) }));

export interface SettleAnswer {
  /** False: the lease is lost and nothing was written. */
  settled: boolean;
  /** Its conversation has more turns now than a plugin is given. */
  overflowed: boolean;
  /** Endpoints of this and of the tasks that were settled with it, in one of their answers. */
  rings: readonly string[];
}

/** Settles one task. */
export const settleRow = perPool((db: TenantDb) =>
  inBatches<SettleRequest, SettleAnswer>({
    statementsAtOnce: 1,
    most: 32,
    isLarge: ({ result, events }) => result.length + events.length > LARGE_RESULT,
    async run(batch) {
      const rows = v.parse(Rows, await db.call("SELECT * FROM settle_tasks($1)", [batchJson(batch)]));
      return rows.sort((a, b) => a.place - b.place);
    },
  }),
);

/** JSON is put in as it is. */
function batchJson(batch: readonly SettleRequest[]): string {
  const items = batch.map(
    ({ result, error, steps, events, ...rest }, place) =>
      `${JSON.stringify({ place, ...rest }).slice(0, -1)},"result":${result},"error":${error},"steps":${steps},"events":${events}}`,
  );
  return `[${items.join(",")}]`;
}
