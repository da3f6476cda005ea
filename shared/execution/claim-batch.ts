/** Claims that wait for the database travel together (`claim_tasks`). */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { inBatches, perPool } from "../db/in-batches.ts";

export interface ClaimRequest {
  id: string;
  leaseMs: number;
  maxCrashes: number;
}

const Row = v.looseObject({ id: v.string() });
export const GONE = { outcome: "gone" } as const;

/** The row of `claim_tasks`, or `GONE` when there is none: over, unknown, or in other hands. */
export const claimRow = perPool((db: PlatformDb) =>
  inBatches<ClaimRequest, Record<string, unknown>>({
    statementsAtOnce: 1,
    most: 32,
    async run(requests) {
      const [{ leaseMs, maxCrashes } = { leaseMs: 0, maxCrashes: 0 }] = requests;
      const rows = v.parse(v.array(Row), await db.call("SELECT * FROM claim_tasks($1, $2, $3)", [requests.map(({ id }) => id), leaseMs, maxCrashes]));
      const found = new Map(rows.map((row) => [row.id, row]));
      return requests.map(({ id }) => {
        const row = found.get(id) ?? GONE;
        // Asked for twice in one batch, a task is one caller's alone.
        found.delete(id);
        return row;
      });
    },
  }),
);
