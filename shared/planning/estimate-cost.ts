/**
 * What a plan will cost in model calls, from low to high, in micro-USD.
 *
 * A step of a plugin that the tenant has run at least five times lately, with the model it would use now, costs what those executions cost: from
 * their 10th to their 90th percentile. Otherwise its manifest says how many tokens it may use: `high` is the whole `token_budget`, a fifth of it
 * output, which is what models write of what they read; `low` is a tenth of that. Steps add up; one with a `when` may be left out, so it adds
 * nothing to `low`. Nothing goes beyond `max_cost_usd`, where the task would stop, and where nobody sends a bill both ends are zero.
 */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import { costMicroUsd } from "../metering/prices.ts";
import type { Upstream } from "../models/upstream.ts";
import type { Manifest } from "../sdk/src/manifest.ts";

export interface EstimatedStep {
  readonly plugin: string;
  readonly when?: string | undefined;
  readonly manifest: Pick<Manifest, "model" | "token_budget">;
}

export interface CostRange {
  readonly low: bigint;
  readonly high: bigint;
}

const ENOUGH = 5;
const OUTPUT_SHARE = 0.2;
const LOW_PARTS = 10n;

const MicroUsd = v.pipe(
  v.string(),
  v.transform((text) => BigInt(text)),
);
const Recent = v.array(v.object({ plugin: v.string(), executions: v.number(), low: MicroUsd, high: MicroUsd }));

export async function estimateCost(
  { db, upstream }: { db: TenantDb; upstream: Pick<Upstream, "charges" | "resolveModel"> },
  tenantId: TenantId,
  steps: readonly EstimatedStep[],
  maxCost: bigint | undefined,
): Promise<CostRange> {
  if (!upstream.charges) return { low: 0n, high: 0n };
  const models = new Map(steps.map(({ plugin, manifest }) => [plugin, upstream.resolveModel(manifest.model)]));
  const rows = await db.call("SELECT * FROM recent_costs($1, $2, $3)", [tenantId, [...models.keys()], [...models.values()]]);
  const recent = new Map(v.parse(Recent, rows).map((row) => [row.plugin, row]));
  let [low, high] = [0n, 0n];
  for (const { plugin, when, manifest } of steps) {
    const known = recent.get(plugin);
    const range = known && known.executions >= ENOUGH ? known : budgetCost(manifest.token_budget, models.get(plugin) ?? manifest.model);
    if (when === undefined) low += range.low;
    high += range.high;
  }
  const atMost = (amount: bigint) => (maxCost !== undefined && amount > maxCost ? maxCost : amount);
  return { low: atMost(low), high: atMost(high) };
}

function budgetCost(tokenBudget: number, model: string): CostRange {
  const output = Math.round(tokenBudget * OUTPUT_SHARE);
  const high = costMicroUsd({ input: tokenBudget - output, output, cacheWrite5m: 0, cacheWrite1h: 0, cacheRead: 0, inUs: false }, model);
  return { low: high / LOW_PARTS, high };
}
