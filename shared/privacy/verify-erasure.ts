/**
 * The look afterwards. It does not trust what the stores said of themselves: every place of the list is searched for the subject's tasks,
 * conversations, ids and address, and what is found is counted. Nothing is written.
 */
import type { Redis } from "ioredis";
import { sql } from "kysely";
import type { PlatformDb, Tx } from "../db/database.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import { admissionKeys, cacheKeys } from "./erase-caches.ts";
import { objectsOfSubject } from "./erase-objects.ts";
import { countLeft, TASK_TABLES, USER_TABLES } from "./erase-rows.ts";
import { countTicketChanges } from "./erase-ticket-changes.ts";
import { type Counts, type ErasureClaim, eraseBatch } from "./erasure-ledger.ts";
import { inPages, ownTasks } from "./subject-items.ts";

const TASKS = 200;

export interface Search {
  /** Where something was found, and how much. Empty: nothing anywhere. */
  found: Counts;
  /** Where it was looked for. */
  searched: string[];
}

export async function searchLeftovers({ db, redis, storage }: { db: PlatformDb; redis: Redis; storage: ObjectStore }, claim: ErasureClaim): Promise<Search> {
  const search: Search = { found: {}, searched: [...USER_TABLES, ...TASK_TABLES].map(({ name }) => name).concat("messages", "tickets_of_others", "redis", "storage") };
  const note = (place: string, count: number) => {
    if (count > 0) search.found[place] = (search.found[place] ?? 0) + count;
  };
  const count = (place: string, look: (tx: Tx) => Promise<number>) => eraseBatch(db, claim, async (tx) => ({ result: await look(tx) })).then((found) => note(place, found));

  for (const table of USER_TABLES) await count(table.name, (tx) => countLeft(tx, table, claim.tenantId, [claim.userId]));
  for await (const ids of inPages(db, claim, "task", TASKS)) {
    for (const table of TASK_TABLES) await count(table.name, (tx) => countLeft(tx, table, claim.tenantId, ids));
    await count("tickets_of_others", (tx) => countTicketChanges(tx, claim.tenantId, ids));
  }
  for await (const ids of inPages(db, claim, "conversation", TASKS))
    await count("messages", async (tx) => {
      const left = await sql<{ count: string }>`SELECT count(*) AS count FROM messages WHERE conversation_id = ANY (${ids}::uuid[])`.execute(tx);
      return Number(left.rows[0]?.count ?? 0);
    });
  // One that the list has missed says itself whose it is.
  for await (const own of ownTasks(db, claim)) note("tasks", own.length);
  for await (const keys of cacheKeys(db, claim)) note("redis", await redis.exists(...keys));
  note("redis", await countAdmissions(db, redis, claim));
  for await (const keys of objectsOfSubject(db, storage, claim)) note("storage", keys.length);
  return search;
}

/** Cached keys of the subject that would still be let in. */
async function countAdmissions(db: PlatformDb, redis: Redis, claim: ErasureClaim): Promise<number> {
  const entries = await Promise.all((await admissionKeys(db, claim)).map((key) => redis.get(key)));
  return entries.filter((entry) => entry?.includes(claim.userId)).length;
}
