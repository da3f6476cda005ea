/** What Redis holds of a person. Nothing of it outlives an hour; an erasure does not wait for that. */
import type { Redis } from "ioredis";
import { historyKey } from "../conversations/history-cache.ts";
import type { PlatformDb } from "../db/database.ts";
import { asId } from "../ids.ts";
import { cancelFlag, watchersKey } from "../redis/streams.ts";
import { type ErasureClaim, eraseBatch } from "./erasure-ledger.ts";
import { inPages } from "./subject-items.ts";

const PAGE = 200;

export async function* cacheKeys(db: PlatformDb, claim: ErasureClaim): AsyncGenerator<string[]> {
  for await (const ids of inPages(db, claim, "conversation", PAGE)) yield ids.map((id) => historyKey(claim.tenantId, asId("conversation", id)));
  for await (const ids of inPages(db, claim, "task", PAGE)) yield ids.flatMap((id) => [cancelFlag(id), watchersKey(id)]);
}

/** Throws when Redis cannot be asked: then nobody knows what it holds, and the erasure waits. */
export async function eraseCaches(db: PlatformDb, redis: Redis, claim: ErasureClaim): Promise<void> {
  for await (const keys of cacheKeys(db, claim)) {
    const count = await redis.del(...keys);
    await eraseBatch(db, claim, async () => ({ counts: { cache_entries: count }, result: undefined }));
  }
}
