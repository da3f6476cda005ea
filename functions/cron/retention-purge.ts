import { cron } from "../../shared/host/declare.ts";
import { PURGES, sweepOrphans } from "../../shared/privacy/retention.ts";
import { replayTombstones } from "../../shared/privacy/tombstones.ts";
import { timeLimit } from "../../shared/sdk/src/time-limit.ts";

/** One run takes no longer than this: what is left is due in the next. */
const RUN_MS = 240_000;

/** Takes away what has been kept for its time, files that no row names, and whoever came back with an old backup. */
export default cron({
  name: "retention-purge",
  summary: "Delete what has been kept for its time, files that no row names, and whom a backup brought back.",
  schedule: "0 17 * * * *",
  needs: ["platformDb", "storage", "clock", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },
  timeoutSec: 300,

  async run({ platformDb, storage, clock, telemetry, signal }) {
    const parts = { db: platformDb, storage };
    const until = AbortSignal.any([signal, timeLimit(RUN_MS)]);
    for (const [kind, purge] of Object.entries(PURGES)) {
      let total = 0;
      for (let gone = 1; gone > 0 && !until.aborted; total += gone) gone = await purge(parts);
      telemetry.retentionPurged(kind, total);
    }
    let orphans = 0;
    for (let swept: number | null = 0; swept !== null && !until.aborted; orphans += swept ?? 0) swept = await sweepOrphans(parts, clock());
    telemetry.retentionPurged("objects without a row", orphans);
    telemetry.retentionPurged("erased users from a backup", (await replayTombstones(platformDb, storage, until)).reopened);
  },
});
