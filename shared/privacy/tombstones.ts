/**
 * Who was erased, as digests, in the bucket and so outside of PostgreSQL's backups: `erasures/{tenant}/{digest}`. A tombstone is written before the
 * first row goes. When a backup from before comes back, the digests tell who has come back with it, and they are erased again. The user's row is
 * the last that goes, so whoever is not there needs nothing.
 */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { asId } from "../ids.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import { type ErasureClaim, reopenErasures } from "./erasure-ledger.ts";

const PREFIX = "erasures/";
const Key = v.pipe(v.string(), v.regex(/^erasures\/[0-9a-f-]{36}\/[0-9a-f]{64}$/));

export async function putTombstone(storage: ObjectStore, claim: ErasureClaim): Promise<void> {
  const body = JSON.stringify({ requested_at: claim.requestedAt.toISOString() });
  await storage.put(`${PREFIX}${claim.tenantId}/${claim.subject}`, Buffer.from(body), "application/json");
}

/** Opens the erasures of everybody again who was erased and is there. Twice, or at once, it opens each once. */
export async function replayTombstones(db: PlatformDb, storage: ObjectStore, signal?: AbortSignal): Promise<{ tombstones: number; reopened: number }> {
  const total = { tombstones: 0, reopened: 0 };
  for (let after: string | null = null; !signal?.aborted; ) {
    const page: string[] = (await storage.list(PREFIX, after)).map(({ key }) => key);
    const last = page.at(-1);
    if (last === undefined) break;
    after = last;
    const byTenant = new Map<string, string[]>();
    for (const key of page) {
      if (!v.is(Key, key)) continue;
      const [, tenant = "", subject = ""] = key.split("/");
      byTenant.set(tenant, [...(byTenant.get(tenant) ?? []), subject]);
      total.tombstones += 1;
    }
    for (const [tenant, subjects] of byTenant) total.reopened += await reopenErasures(db, asId("tenant", tenant), subjects);
  }
  return total;
}
