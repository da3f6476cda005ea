/**
 * What each plan includes and costs beside the models (SPEC 7.1). All money is whole micro-USD.
 *
 * A changed price is a new list with a later `from`; an invoice is made of the list that held when its month began, and keeps that list's version.
 */
import type { PlanTier } from "../access/caller.ts";

export interface Plan {
  /** Plugins that may be subscribed to at a time; null: any number. */
  plugins: number | null;
  mayChain: boolean;
  /** Whether plugins may be built for this tenant alone. */
  mayOwnPlugins: boolean;
  /** Executions of each plugin that a month includes; null: no limit. */
  quota: number | null;
  /** For the plan as a whole, each month. */
  platformFee: bigint;
  /** For each plugin, each month; by the day where it was not subscribed to for all of it. */
  pluginFee: bigint;
  /** Taken off the plugins' fees on days with so many plugins, in hundredths of a percent; the last holds for more. */
  bundleDiscounts: readonly number[];
  /** For each execution beyond the quota; null: there is none. */
  overage: bigint | null;
  /** What executions cost by their number in the month, each band for those within it. */
  volume: readonly { upTo: number | null; each: bigint }[];
}

export interface PlanPrices {
  version: string;
  /** The first month that it holds for, as YYYY-MM-DD. */
  from: string;
  plans: Readonly<Record<PlanTier, Plan>>;
}

const usd = (dollars: number): bigint => BigInt(Math.round(dollars * 1_000_000));
const NOTHING_MORE = { platformFee: 0n, bundleDiscounts: [0], overage: null, volume: [] };

const LISTS: readonly PlanPrices[] = [
  {
    version: "plans-2026-01",
    from: "2026-01-01",
    plans: {
      starter: { ...NOTHING_MORE, plugins: 1, mayChain: false, mayOwnPlugins: false, quota: 100, pluginFee: usd(19) },
      professional: {
        ...NOTHING_MORE,
        plugins: 5,
        mayChain: true,
        mayOwnPlugins: false,
        quota: 1_000,
        pluginFee: usd(49),
        bundleDiscounts: [0, 1_000, 1_500, 2_000, 2_500],
        overage: usd(0.02),
      },
      enterprise: {
        ...NOTHING_MORE,
        plugins: null,
        mayChain: true,
        mayOwnPlugins: true,
        quota: null,
        // A twelfth of the annual contract.
        platformFee: usd(1_500),
        pluginFee: 0n,
        volume: [
          { upTo: 10_000, each: usd(0.015) },
          { upTo: 100_000, each: usd(0.01) },
          { upTo: null, each: usd(0.006) },
        ],
      },
    },
  },
];

/** The list for the month that begins on this day. */
export function planPricesFor(month: string): PlanPrices {
  const [first] = LISTS;
  if (!first) throw new Error("there is no list of prices");
  return LISTS.reduce((best, list) => (list.from <= month && list.from > best.from ? list : best), first);
}

export function planOf(tier: PlanTier, at: Date = new Date()): Plan {
  return planPricesFor(at.toISOString().slice(0, 10)).plans[tier];
}

/** As the SQL functions read it. */
export function planPricesJson({ version, plans }: PlanPrices): string {
  return JSON.stringify({ version, plans }, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value));
}
