/** Whether the chains of migrations/0014 hold. */
import { sql } from "kysely";
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { publicId } from "../ids.ts";

/** Where each tenant's chain stands, by the tenant's public id. */
export type Heads = Record<string, { seq: number; hash: string }>;

export interface BrokenChain {
  tenant: string;
  /** The first entry that is wrong. */
  seq: number;
  problem: string;
}

const PAGE = 5_000;
const PROBLEMS: Readonly<Record<string, string>> = {
  missing: "is where others are missing",
  out_of_order: "does not follow the one before",
  changed: "is not what was written",
};

const Head = v.object({ tenant_id: v.string(), seq: v.pipe(v.string(), v.transform(Number)), hash: v.instance(Buffer) });
const Page = v.object({
  checked: v.number(),
  seq: v.nullable(v.pipe(v.string(), v.transform(Number))),
  hash: v.nullable(v.instance(Buffer)),
  broken_seq: v.nullable(v.pipe(v.string(), v.transform(Number))),
  problem: v.nullable(v.string()),
});

/** Follows every chain from its first entry; those of `known` must pass through where they stood then. Entries may be written meanwhile. */
export async function verifyAuditLogs(db: PlatformDb, known: Heads = {}): Promise<{ heads: Heads; broken: BrokenChain[]; entries: number }> {
  const rows = await db.platform((tx) => tx.selectFrom("audit_heads").select(["tenant_id", "seq", "hash"]).orderBy("tenant_id").execute());
  const heads: Heads = {};
  const broken: BrokenChain[] = [];
  let entries = 0;
  for (const { tenant_id, seq, hash } of v.parse(v.array(Head), rows)) {
    const tenant = publicId("tenant", tenant_id);
    const anchor = known[tenant];
    const stops = anchor && anchor.seq < seq ? [anchor, { seq, hash: hash.toString("hex") }] : [{ seq, hash: hash.toString("hex") }];
    const found = anchor && anchor.seq > seq ? { seq: seq + 1, problem: "was there once, and is missing" } : await follow(db, tenant_id, stops);
    if (found) broken.push({ tenant, ...found });
    heads[tenant] = { seq, hash: hash.toString("hex") };
    entries += seq;
  }
  for (const tenant of Object.keys(known)) if (!heads[tenant]) broken.push({ tenant, seq: 1, problem: "was there once, and is missing" });
  return { heads, broken, entries };
}

async function follow(db: PlatformDb, tenantId: string, stops: readonly { seq: number; hash: string }[]): Promise<Omit<BrokenChain, "tenant"> | null> {
  let [seq, hash]: [number, Buffer] = [0, Buffer.alloc(0)];
  for (const stop of stops) {
    while (seq < stop.seq) {
      const [after, before, count] = [seq, hash, Math.min(PAGE, stop.seq - seq)];
      const [raw] = (await db.platform((tx) => sql`SELECT * FROM verify_audit_log(${tenantId}, ${after}, ${before}, ${count})`.execute(tx))).rows;
      const page = v.parse(Page, raw);
      if (page.broken_seq !== null) return { seq: page.broken_seq, problem: PROBLEMS[page.problem ?? ""] ?? "is wrong" };
      if (page.seq === null || page.hash === null) return { seq: seq + 1, problem: "is missing, and all behind it" };
      [seq, hash] = [page.seq, page.hash];
    }
    if (hash.toString("hex") !== stop.hash) return { seq: stop.seq, problem: "is not what it was" };
  }
  return null;
}
