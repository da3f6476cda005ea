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

/** The cached look-ups of the subject's API keys. */
export async function admissionKeys(db: PlatformDb, claim: ErasureClaim): Promise<string[]> {
  const keys = await eraseBatch(db, claim, async (tx) => ({
    result: await tx.selectFrom("api_keys").select("key_hash").where("tenant_id", "=", claim.tenantId).where("user_id", "=", claim.userId).execute(),
  }));
  return keys.map(({ key_hash }) => `auth:${key_hash}`);
}

/** Throws when Redis cannot be asked: then nobody knows what it holds, and the erasure waits. */
export async function eraseCaches(db: PlatformDb, redis: Redis, claim: ErasureClaim): Promise<void> {
  // They count for nothing since the keys were revoked, and no slow reader can put one back; but they name the user.
  const admissions = await admissionKeys(db, claim);
  if (admissions.length > 0) await redis.del(...admissions);
  for await (const keys of cacheKeys(db, claim)) {
    const count = await redis.del(...keys);
    await eraseBatch(db, claim, async () => ({ counts: { cache_entries: count }, result: undefined }));
  }
}
