/**
 * One wake-up of `user-erase`. First nothing new can begin: the keys are revoked, and a trigger refuses tasks. Then everything under way ends. Then
 * store after store forgets, in batches that may be done any number of times. Then all stores are searched, and only when nothing is found the user's
 * row goes and the certificate is written, in one transaction. Whoever is killed on the way leaves a row that `wake` rings for.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import { sql } from "kysely";
import { tellAccessChanged } from "../access/key-cache.ts";
import type { PlatformDb, Tx } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import type { ErasureId } from "../ids.ts";
import type { Signals } from "../redis/signals.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { eraseCaches } from "./erase-caches.ts";
import { eraseArtifacts, eraseOrphans, uploadsSettleInMs } from "./erase-objects.ts";
import { childrenOf, countRows, eraseRows, type PersonalTable, TASK_TABLES, USER_TABLES } from "./erase-rows.ts";
import { eraseTicketChanges } from "./erase-ticket-changes.ts";
import { beginAgain, claimErasure, completeErasure, type ErasureClaim, eraseBatch, LeaseLost, markDone, putOffErasure, revokeKeys } from "./erasure-ledger.ts";
import { inPages, listSubject } from "./subject-items.ts";
import { putTombstone } from "./tombstones.ts";
import { searchLeftovers } from "./verify-erasure.ts";

export interface Eraser {
  db: PlatformDb;
  redis: Redis;
  signals: Pick<Signals, "cancelRequested">;
  storage: ObjectStore;
  telemetry: Pick<Telemetry, "erasureFinished" | "erasurePutOff">;
}

const DONE = { outcome: "done" } as const;
/** How long one wake-up waits for tasks to stop; then it gives the erasure back for a while. */
const WAIT_MS = 10_000;
const LOOK_EVERY_MS = 250;
const AGAIN_MS = 5_000;
const AFTER_ERROR_MS = 30_000;
/** What a batch works on at a time. */
const TASKS = 100;
const ROWS_OF_USER = 20;

/** Stops early when something has to be waited for; the caller gives the lease back. */
class NotYet extends Error {
  readonly delayMs: number;
  constructor(delayMs: number) {
    super("not yet");
    this.delayMs = delayMs;
  }
}

export async function eraseUser(eraser: Eraser, id: ErasureId, signal: AbortSignal): Promise<typeof DONE> {
  const claim = await claimErasure(eraser.db, id);
  if (!claim) return DONE;
  try {
    await block(eraser, claim);
    await endTasks(eraser, claim, signal);
    for (const [store, erase] of STORES) {
      if (claim.done.has(store)) continue;
      if (signal.aborted) throw new NotYet(0);
      await erase(eraser, claim);
      await markDone(eraser.db, claim, store);
      FAILPOINT: await failpoint(`erase.after_${store}`);
    }
    const { found, searched } = await searchLeftovers(eraser, claim);
    if (Object.keys(found).length > 0) {
      await beginAgain(eraser.db, claim);
      throw new NotYet(AGAIN_MS);
    }
    FAILPOINT: await failpoint("erase.after_search");
    await completeErasure(eraser.db, claim, searched);
    eraser.telemetry.erasureFinished({ erasureId: id, tenantId: claim.tenantId });
  } catch (error) {
    if (error instanceof LeaseLost) return DONE;
    // Acknowledged, since PostgreSQL remembers: events that wait would be joined by one of every later ring.
    await putOffErasure(eraser.db, claim, error instanceof NotYet ? error.delayMs : AFTER_ERROR_MS);
    if (!(error instanceof NotYet)) eraser.telemetry.erasurePutOff({ erasureId: id, tenantId: claim.tenantId, error });
  }
  return DONE;
}

/** After this no key of the subject is accepted, no task begins, and no backup brings them back unnoticed. */
async function block({ db, redis, storage }: Eraser, claim: ErasureClaim): Promise<void> {
  const generation = await eraseBatch(db, claim, async (tx) => ({ result: await revokeKeys(tx, claim.tenantId, claim.userId) }));
  await tellAccessChanged(redis, claim.tenantId, generation);
  await putTombstone(storage, claim);
  FAILPOINT: await failpoint("erase.after_block");
  await pass(db);
}

/** Waits until nobody who may not have seen what is committed now can still write. */
async function pass(db: PlatformDb): Promise<void> {
  const [row] = await db.call<{ barrier: string }>("SELECT erasure_barrier() AS barrier", []);
  for (const until = performance.now() + WAIT_MS; performance.now() < until; ) {
    const [seen] = await db.call<{ passed: boolean }>("SELECT erasure_passed($1) AS passed", [row?.barrier]);
    if (seen?.passed) return;
    await delay(LOOK_EVERY_MS);
  }
  throw new NotYet(AGAIN_MS);
}

/** Lists what is the subject's and ends what runs; on return nothing of it can write any more, and no file of it is on its way. */
async function endTasks({ db, signals }: Eraser, claim: ErasureClaim, signal: AbortSignal): Promise<void> {
  await listSubject(db, claim);
  for (const until = performance.now() + WAIT_MS; ; ) {
    const [state] = await db.call<{ ended: number; running: string[] }>("SELECT ended, running FROM cancel_subject_tasks($1)", [claim.id]);
    if (!state || (state.ended === 0 && state.running.length === 0)) break;
    await Promise.all(state.running.map((task) => signals.cancelRequested(task)));
    if (state.running.length > 0 && (signal.aborted || performance.now() > until)) throw new NotYet(AGAIN_MS);
    if (state.running.length > 0) await delay(LOOK_EVERY_MS);
  }
  FAILPOINT: await failpoint("erase.after_cancel");
  await pass(db);
  const settleMs = await uploadsSettleInMs(db, claim);
  if (settleMs > 0) throw new NotYet(settleMs);
}

type Erase = (eraser: Eraser, claim: ErasureClaim) => Promise<void>;

const ofUser = (table: PersonalTable): [string, Erase] => [table.name, ({ db }, claim) => eraseOfUser(db, claim, table)];
const ofTasks = (table: PersonalTable): [string, Erase] => [table.name, ({ db }, claim) => eraseOfTasks(db, claim, table)];

/** In this order: what others are found by goes after them. Each is safe to do again from its beginning. */
const STORES: readonly [string, Erase][] = [
  ["caches", ({ db, redis }, claim) => eraseCaches(db, redis, claim)],
  ...USER_TABLES.map(ofUser),
  ["artifacts", ({ db, storage }, claim) => eraseFiles(db, storage, claim)],
  ...TASK_TABLES.filter(({ name }) => name !== "artifacts").flatMap(
    (table) => (table.name === "ticket_events" ? [["tickets_of_others", eraseFromTickets], ofTasks(table)] : [ofTasks(table)]) satisfies [string, Erase][],
  ),
];

/** After the subject's own tickets, so that only those of others are counted. */
async function eraseFromTickets({ db }: Eraser, claim: ErasureClaim): Promise<void> {
  for await (const ids of inPages(db, claim, "task", TASKS))
    await eraseBatch(db, claim, async (tx) => ({ counts: { tickets_of_others: await eraseTicketChanges(tx, claim.tenantId, ids) }, result: undefined }));
}

async function eraseFiles(db: PlatformDb, storage: ObjectStore, claim: ErasureClaim): Promise<void> {
  for await (const ids of inPages(db, claim, "task", TASKS)) await eraseArtifacts(db, storage, claim, ids);
  await eraseOrphans(db, storage, claim);
}

async function eraseOfTasks(db: PlatformDb, claim: ErasureClaim, table: PersonalTable): Promise<void> {
  for await (const ids of inPages(db, claim, "task", TASKS))
    await eraseBatch(db, claim, async (tx) => ({ counts: { [table.name]: await eraseRows(tx, table, claim.tenantId, ids, claim.pseudonym) }, result: undefined }));
}

/** Rows that name the user, and those that go with them: conversations with their messages. */
async function eraseOfUser(db: PlatformDb, claim: ErasureClaim, table: PersonalTable): Promise<void> {
  if (table.personal.erasure !== "deleted") {
    await eraseBatch(db, claim, async (tx) => ({ counts: { [table.name]: await eraseRows(tx, table, claim.tenantId, [claim.userId], claim.pseudonym) }, result: undefined }));
    return;
  }
  for (let isMore = true; isMore; ) {
    isMore = await eraseBatch(db, claim, async (tx) => {
      const found = await sql<{
        id: string;
      }>`SELECT id FROM ${sql.table(table.name)} WHERE tenant_id = ${claim.tenantId} AND ${sql.ref(table.column)} = ${claim.userId} LIMIT ${ROWS_OF_USER}`.execute(tx);
      const ids = found.rows.map(({ id }) => id);
      const counts: Record<string, number> = {};
      for (const child of childrenOf(table.name)) counts[child.name] = await countRows(tx, child.name, child.column, ids);
      if (table.name === "conversations") counts.summaries = await countSummaries(tx, ids);
      const gone = await sql`DELETE FROM ${sql.table(table.name)} WHERE id = ANY (${ids}::uuid[])`.execute(tx);
      counts[table.name] = Number(gone.numAffectedRows ?? 0n);
      return { counts, result: ids.length > 0 };
    });
  }
}

async function countSummaries(tx: Tx, ids: readonly string[]): Promise<number> {
  const found = await sql<{ count: string }>`SELECT count(*) AS count FROM conversations WHERE id = ANY (${ids}::uuid[]) AND summary IS NOT NULL`.execute(tx);
  return Number(found.rows[0]?.count ?? 0);
}
