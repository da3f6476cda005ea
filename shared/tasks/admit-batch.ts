/**
 * Group commit for admissions. A submit that finds the database free goes at once; those that arrive while statements are under
 * way go together in the next one. Nobody waits for company: batches only form where there was a wait already.
 */
import * as v from "valibot";
import { sqlState, type TenantDb } from "../db/database.ts";

export const AdmitRow = v.object({
  outcome: v.picklist(["admitted", "replayed", "key_reused", "not_subscribed", "quota_exceeded"]),
  task_id: v.nullable(v.string()),
  created_at: v.nullable(v.date()),
  quota_limit: v.nullable(v.number()),
  overage: v.boolean(),
  /** The plugin at fault, where there are several. */
  plugin: v.optional(v.nullable(v.string())),
});
export type AdmitRow = v.InferOutput<typeof AdmitRow>;

/** The arguments of admit_task by name; `plan` and `input` are JSON texts. */
export interface Admittee {
  tenant: string;
  id: string;
  user: string | null;
  key: string;
  environment: string;
  conversation: string | null;
  plugin: string;
  plan: string;
  input: string;
  method: string;
  confidence: number | null;
  priority: string;
  max_cost: string | null;
  deadline: string;
  traceparent: string;
  request: string;
  idempotency_key: string | null;
  request_sha256: string | null;
  /** float4, little-endian, as base64. */
  embedding: string | null;
  embedding_model: string | null;
}

const ONE = "SELECT * FROM admit_task($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
const MANY = "SELECT * FROM admit_tasks($1)";
/** A few, so that batches form while others are at work, and one that waits for a tenant's lock does not hold up everybody. */
const STATEMENTS_AT_ONCE = 4;
const BATCH_MAX = 64;
/** Larger inputs go alone: one of them would make everybody else's statement slow. */
const SMALL_INPUT = 16 * 1024;

interface Waiting {
  admittee: Admittee;
  resolve(row: AdmitRow): void;
  reject(error: unknown): void;
}

interface Desk {
  queue: Waiting[];
  underWay: number;
}

const desks = new WeakMap<TenantDb, Desk>();

/** Admits one task. An error leaves it open whether it was admitted, exactly as a statement of its own would. */
export function admit(db: TenantDb, admittee: Admittee): Promise<AdmitRow> {
  if (admittee.input.length > SMALL_INPUT) return admitAlone(db, admittee);
  const desk = desks.get(db) ?? { queue: [], underWay: 0 };
  desks.set(db, desk);
  return new Promise((resolve, reject) => {
    desk.queue.push({ admittee, resolve, reject });
    serve(db, desk);
  });
}

function serve(db: TenantDb, desk: Desk): void {
  while (desk.underWay < STATEMENTS_AT_ONCE && desk.queue.length > 0) {
    const batch = desk.queue.splice(0, BATCH_MAX);
    desk.underWay += 1;
    admitTogether(db, batch).finally(() => {
      desk.underWay -= 1;
      serve(db, desk);
    });
  }
}

async function admitTogether(db: TenantDb, batch: readonly Waiting[]): Promise<void> {
  const [only] = batch;
  if (batch.length === 1 && only) return admitAlone(db, only.admittee).then(only.resolve, only.reject);
  try {
    const rows = v.parse(v.array(v.object({ place: v.number(), ...AdmitRow.entries })), await db.call(MANY, [batchJson(batch)]));
    const byPlace = new Map(rows.map((row) => [row.place, row]));
    for (const [place, { resolve, reject }] of batch.entries()) {
      const row = byPlace.get(place);
      if (row) resolve(row);
      else reject(new Error("admit_tasks left an admission out"));
    }
  } catch (error) {
    // The server has refused the statement, so none was admitted: one may be at fault, and the others go on without it.
    if (isRefused(error)) await Promise.all(batch.map(({ admittee, resolve, reject }) => admitAlone(db, admittee).then(resolve, reject)));
    // The answer is lost: each finds out by its own row.
    else for (const { reject } of batch) reject(error);
  }
}

/** True when the server itself undid the statement; a lost connection or an ending server leaves it open. */
function isRefused(error: unknown): boolean {
  const state = sqlState(error) ?? sqlState(error instanceof Error ? error.cause : null);
  return state !== null && !/^(08|57)/.test(state);
}

async function admitAlone(db: TenantDb, a: Admittee): Promise<AdmitRow> {
  const values = [
    a.tenant,
    a.id,
    a.user,
    a.key,
    a.environment,
    a.conversation,
    a.plugin,
    a.plan,
    a.input,
    a.method,
    a.confidence,
    a.priority,
    a.max_cost,
    a.deadline,
    a.traceparent,
    a.request,
    a.idempotency_key,
    a.request_sha256,
  ];
  const [row] = await db.call(ONE, values);
  return v.parse(AdmitRow, row);
}

/** `plan` and `input` are JSON already; they are put in as they are. */
function batchJson(batch: readonly Waiting[]): string {
  const items = batch.map(({ admittee: { plan, input, ...rest } }, place) => `${JSON.stringify({ place, ...rest }).slice(0, -1)},"plan":${plan},"input":${input}}`);
  return `[${items.join(",")}]`;
}
