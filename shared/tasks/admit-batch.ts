/** Admissions that wait for the database travel together (`admit_tasks`). */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { inBatches, perPool } from "../db/in-batches.ts";

export const AdmitRow = v.object({
  outcome: v.picklist(["admitted", "replayed", "key_reused", "not_subscribed", "quota_exceeded"]),
  task_id: v.nullable(v.string()),
  created_at: v.nullable(v.date()),
  /** Reserved and used after this one. */
  quota_used: v.optional(v.number(), 0),
  quota_limit: v.nullable(v.number()),
  overage: v.boolean(),
  /** Executions of the plugin that the tenant has open, with this one; 0 where none was admitted. */
  backlog: v.number(),
  /** The tenant has not subscribed: quota and limit are those of its free tries. */
  sandbox: v.optional(v.boolean(), false),
  /** The plugin at fault, where there are several. */
  plugin: v.optional(v.nullable(v.string())),
});
export type AdmitRow = v.InferOutput<typeof AdmitRow>;

/** What `admit_tasks` reads of one task; `plan` and `input` are JSON texts. */
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

const LARGE_INPUT = 16 * 1024;
const Rows = v.array(v.object({ place: v.number(), ...AdmitRow.entries }));

/** Admits one task. An error leaves it open whether it was admitted. */
export const admit = perPool((db: TenantDb) =>
  inBatches<Admittee, AdmitRow>({
    statementsAtOnce: 4,
    most: 64,
    isLarge: ({ input }) => input.length > LARGE_INPUT,
    async run(batch) {
      const rows = v.parse(Rows, await db.call("SELECT * FROM admit_tasks($1)", [batchJson(batch)]));
      return rows.sort((a, b) => a.place - b.place);
    },
  }),
);

/** `plan` and `input` are JSON already; they are put in as they are. */
function batchJson(batch: readonly Admittee[]): string {
  const items = batch.map(({ plan, input, ...rest }, place) => `${JSON.stringify({ place, ...rest }).slice(0, -1)},"plan":${plan},"input":${input}}`);
  return `[${items.join(",")}]`;
}
