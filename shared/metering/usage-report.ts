/** What a tenant has used, read from the rows that settling keeps beside the events: the same few rows however many executions there were. */
import * as v from "valibot";
import type { Environment } from "../access/caller.ts";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { publicId, type TenantId } from "../ids.ts";
import { formatUsd } from "../money.ts";

export const GROUPS = ["plugin", "day", "key", "model"] as const;
export type Group = (typeof GROUPS)[number];

/** What one answer may hold. */
const MAX_ROWS = 5_000;

const Figures = v.strictObject({
  /** All that ended, of whatever kind. */
  executions: v.number(),
  billable: v.number(),
  overage: v.number(),
  /** Of billable executions; `cost_usd` is what their model calls cost. */
  tokens: v.strictObject({ input: v.number(), output: v.number(), cache_write: v.number(), cache_read: v.number() }),
  cost_usd: v.string(),
  /** What failed, was stopped, tried or tested: it is not billed. */
  unbilled: v.strictObject({ tokens: v.number(), cost_usd: v.string() }),
});
type Figures = v.InferOutput<typeof Figures>;

const Quota = v.strictObject({
  plugin: v.string(),
  /** The tries that are free without a subscription, which count once and not a month. */
  sandbox: v.boolean(),
  period_start: v.nullable(v.string()),
  used: v.number(),
  /** Admitted, and not ended yet. */
  reserved: v.number(),
  limit: v.nullable(v.number()),
  remaining: v.nullable(v.number()),
  overage_enabled: v.boolean(),
});

export const UsageReport = v.strictObject({
  from: v.string(),
  to: v.string(),
  total: Figures,
  usage: v.array(
    v.strictObject({
      plugin: v.optional(v.string()),
      day: v.optional(v.string()),
      key_id: v.optional(v.nullable(v.string())),
      model: v.optional(v.nullable(v.string())),
      ...Figures.entries,
    }),
  ),
  quotas: v.array(Quota),
});

const Whole = v.pipe(
  v.string(),
  v.transform((text) => BigInt(text)),
);
const Counted = v.object({
  executions: Whole,
  billable: Whole,
  overage: Whole,
  input_tokens: Whole,
  output_tokens: Whole,
  cache_write_tokens: Whole,
  cache_read_tokens: Whole,
  cost_micro_usd: Whole,
  unbilled_tokens: Whole,
  unbilled_micro_usd: Whole,
});
type Counted = v.InferOutput<typeof Counted>;
const UsageRow = v.object({ plugin: v.nullable(v.string()), day: v.nullable(v.string()), api_key_id: v.nullable(v.string()), model: v.nullable(v.string()), ...Counted.entries });
const QuotaRow = v.object({ ...v.omit(Quota, ["limit", "remaining"]).entries, quota_limit: v.nullable(v.number()) });

export interface UsageQuestion {
  environment: Environment;
  /** YYYY-MM-DD, both included. */
  from: string;
  to: string;
  by: readonly Group[];
}

export async function reportUsage(db: TenantDb, tenantId: TenantId, { environment, from, to, by }: UsageQuestion): Promise<v.InferOutput<typeof UsageReport>> {
  const [rows, quotas] = await Promise.all([
    db.call("SELECT * FROM usage_report($1, $2, $3, $4, $5, $6)", [tenantId, environment, from, to, by, MAX_ROWS + 1]).then((raw) => v.parse(v.array(UsageRow), raw)),
    db.call("SELECT * FROM quota_report($1, $2)", [tenantId, environment]).then((raw) => v.parse(v.array(QuotaRow), raw)),
  ]);
  if (rows.length > MAX_ROWS) throw new Refusal("INVALID_INPUT", { message: `That is more than ${MAX_ROWS} rows: ask for fewer days, or group by less.` });
  return {
    from,
    to,
    total: figures(rows.reduce(added, NOTHING)),
    usage: rows.map((row) => ({
      ...(by.includes("plugin") ? { plugin: row.plugin ?? "" } : {}),
      ...(by.includes("day") ? { day: row.day ?? "" } : {}),
      ...(by.includes("key") ? { key_id: row.api_key_id && publicId("key", row.api_key_id) } : {}),
      ...(by.includes("model") ? { model: row.model } : {}),
      ...figures(row),
    })),
    quotas: quotas.map(({ quota_limit: limit, ...quota }) => ({ ...quota, limit, remaining: limit === null ? null : Math.max(0, limit - quota.used - quota.reserved) })),
  };
}

const NOTHING: Counted = {
  executions: 0n,
  billable: 0n,
  overage: 0n,
  input_tokens: 0n,
  output_tokens: 0n,
  cache_write_tokens: 0n,
  cache_read_tokens: 0n,
  cost_micro_usd: 0n,
  unbilled_tokens: 0n,
  unbilled_micro_usd: 0n,
};

function added(a: Counted, b: Counted): Counted {
  return {
    executions: a.executions + b.executions,
    billable: a.billable + b.billable,
    overage: a.overage + b.overage,
    input_tokens: a.input_tokens + b.input_tokens,
    output_tokens: a.output_tokens + b.output_tokens,
    cache_write_tokens: a.cache_write_tokens + b.cache_write_tokens,
    cache_read_tokens: a.cache_read_tokens + b.cache_read_tokens,
    cost_micro_usd: a.cost_micro_usd + b.cost_micro_usd,
    unbilled_tokens: a.unbilled_tokens + b.unbilled_tokens,
    unbilled_micro_usd: a.unbilled_micro_usd + b.unbilled_micro_usd,
  };
}

function figures(row: Counted): Figures {
  return {
    executions: Number(row.executions),
    billable: Number(row.billable),
    overage: Number(row.overage),
    tokens: { input: Number(row.input_tokens), output: Number(row.output_tokens), cache_write: Number(row.cache_write_tokens), cache_read: Number(row.cache_read_tokens) },
    cost_usd: formatUsd(row.cost_micro_usd),
    unbilled: { tokens: Number(row.unbilled_tokens), cost_usd: formatUsd(row.unbilled_micro_usd) },
  };
}
