/**
 * One wake-up of `history-summarise`: tells the oldest turns of a conversation in its running summary, and moves the cursor past them
 * in one guarded statement. Whoever loses that race, is killed on the way or has no model writes nothing: the turns stay where they are.
 */
import type { Redis } from "ioredis";
import type { PlatformDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { Upstream } from "../models/upstream.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import type { ConversationId } from "./conversation-id.ts";
import { historyKey, whileChanging } from "./history-cache.ts";
import { moveSummary, putOffSummary, readOverflow } from "./summaries.ts";
import { writeSummary } from "./write-summary.ts";

export interface Summariser {
  db: Pick<PlatformDb, "call">;
  redis: Redis;
  upstream: Upstream;
  telemetry: Telemetry;
}

const DONE = { outcome: "done" } as const;
const LATER = { outcome: "later", retryAfterSec: 1 } as const;
/** A conversation that the model was away from for long is caught up with in several wake-ups. */
const MAX_SUMMARIES = 10;

export async function summariseHistory({ db, redis, upstream, telemetry }: Summariser, id: ConversationId, signal: AbortSignal): Promise<typeof DONE | typeof LATER> {
  for (let count = 0; count < MAX_SUMMARIES; count++) {
    const overflow = await readOverflow(db, id);
    if (!overflow) return DONE;
    if (signal.aborted) return LATER;
    const startedAt = performance.now();
    const written = await writeSummary(upstream, overflow, signal);
    if ("retryAfterSec" in written) {
      telemetry.degraded("summary", written.error);
      if (signal.aborted) return LATER;
      // Acknowledged, since PostgreSQL remembers: an event that waits for the model would be joined by one of every later ring.
      await putOffSummary(db, id, written.retryAfterSec * 1000);
      return DONE;
    }
    FAILPOINT: await failpoint("summary.after_model");
    const hasMoved = await whileChanging(redis, historyKey(overflow.tenantId, id), () => moveSummary(db, id, overflow, written));
    FAILPOINT: await failpoint("summary.after_commit");
    telemetry.historySummarised({
      tenantId: overflow.tenantId,
      model: written.model,
      tokens: written.tokens,
      turns: overflow.turns.length,
      outcome: hasMoved ? "written" : "outrun",
      durationMs: performance.now() - startedAt,
    });
    // Another wake-up has told these turns, and goes on with what is left.
    if (!hasMoved) return DONE;
  }
  return LATER;
}
