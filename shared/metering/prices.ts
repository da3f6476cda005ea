/**
 * What model calls cost. All money is whole micro-USD (1 USD = 1,000,000) in BigInt, so that a sum over a month is exact.
 * Source of the prices: https://platform.claude.com/docs/en/about-claude/pricing, as of the date in PRICE_VERSION.
 *
 * The version is stored with every call. A changed price gets a new version; calls that are settled keep theirs.
 */

export const PRICE_VERSION = "2026-10-24";
/** Stored as the version of calls that nobody sends a bill for: the offline model, and servers that are reached without a key. */
export const UNPRICED_VERSION = "unpriced";

/** Micro-USD per million tokens of each class, and the most tokens that a prompt can have. */
export interface Price {
  input: bigint;
  output: bigint;
  cacheWrite5m: bigint;
  cacheWrite1h: bigint;
  cacheRead: bigint;
  contextWindow: number;
  /** Prompts above this many tokens, cached ones included, cost `factor` times as much in every class. */
  longPrompt?: { above: number; factor: bigint };
}

/** What a provider counted. Cache writes cost by how long they are kept. */
export interface TokenCounts {
  input: number;
  output: number;
  cacheWrite5m: number;
  cacheWrite1h: number;
  cacheRead: number;
  /** The provider was held to US data centres, which costs a tenth more. */
  inUs: boolean;
}

/** From prices in thousandths of a dollar per million tokens, as they can be read in the provider's table. */
const price = (input: number, output: number, cacheWrite5m: number, cacheWrite1h: number, cacheRead: number, contextWindow: number): Price => ({
  input: BigInt(input) * 1000n,
  output: BigInt(output) * 1000n,
  cacheWrite5m: BigInt(cacheWrite5m) * 1000n,
  cacheWrite1h: BigInt(cacheWrite1h) * 1000n,
  cacheRead: BigInt(cacheRead) * 1000n,
  contextWindow,
});

const M = 1_000_000;
const FABLE_5_1 = price(10_000, 50_000, 12_500, 20_000, 250, M);
const FABLE_5 = price(10_000, 50_000, 12_500, 20_000, 1_000, M);
const OPUS_5 = price(5_000, 25_000, 6_250, 10_000, 500, M);
const SONNET_4 = price(3_000, 15_000, 3_750, 6_000, 300, M);

export const PRICES: ReadonlyMap<string, Price> = new Map([
  ["claude-fable-5-2", FABLE_5],
  ["claude-fable-5-1", FABLE_5_1],
  ["claude-fable-5", FABLE_5],
  ["claude-mythos-5-2", FABLE_5],
  ["claude-mythos-5-1", FABLE_5_1],
  ["claude-mythos-5", FABLE_5],
  ["claude-mythos-preview", price(25_000, 125_000, 31_250, 50_000, 2_500, M)],
  ["claude-opus-5-5", price(4_000, 20_000, 5_000, 8_000, 200, M)],
  ["claude-opus-5", OPUS_5],
  ["claude-opus-4-8", OPUS_5],
  ["claude-opus-4-7", OPUS_5],
  ["claude-opus-4-6", OPUS_5],
  ["claude-opus-4-5", { ...OPUS_5, contextWindow: 200_000 }],
  ["claude-opus-4-1", price(15_000, 75_000, 18_750, 30_000, 1_500, 200_000)],
  ["claude-sonnet-5-5", price(2_000, 10_000, 2_500, 4_000, 100, M)],
  ["claude-sonnet-5", price(2_000, 10_000, 2_500, 4_000, 200, M)],
  ["claude-sonnet-4-6", SONNET_4],
  ["claude-sonnet-4-5", SONNET_4],
  ["claude-haiku-5-5", { ...price(100, 500, 125, 200, 10, M), longPrompt: { above: 100_000, factor: 5n } }],
  ["claude-haiku-4-5", price(1_000, 5_000, 1_250, 2_000, 100, 200_000)],
  ["offline-extractive", price(0, 0, 0, 0, 0, M)],
]);

/** For models that the table does not know: the dearest known price of each class, so that a ceiling is never too low. */
export const DEFAULT_PRICE: Price = [...PRICES.values()].reduce((dearest, one) => ({
  input: max(dearest.input, one.input),
  output: max(dearest.output, one.output),
  cacheWrite5m: max(dearest.cacheWrite5m, one.cacheWrite5m),
  cacheWrite1h: max(dearest.cacheWrite1h, one.cacheWrite1h),
  cacheRead: max(dearest.cacheRead, one.cacheRead),
  contextWindow: Math.max(dearest.contextWindow, one.contextWindow),
}));

/** True when the table has a price for this name; dated snapshots such as `claude-haiku-4-5-20251001` cost what their model costs. */
export function isPriced(model: string): boolean {
  return PRICES.has(undated(model));
}

export function priceOf(model: string): Price {
  return PRICES.get(undated(model)) ?? DEFAULT_PRICE;
}

/**
 * The cost of a call, rounded up to a whole micro-USD once, at the end: the tenant's record is never below the provider's bill, and
 * exceeds it by less than a micro-USD a call.
 */
export function costMicroUsd(counts: TokenCounts, model: string): bigint {
  const tariff = priceOf(model);
  const prompt = counts.input + counts.cacheWrite5m + counts.cacheWrite1h + counts.cacheRead;
  const factor = tariff.longPrompt && prompt > tariff.longPrompt.above ? tariff.longPrompt.factor : 1n;
  const millionths =
    BigInt(counts.input) * tariff.input +
    BigInt(counts.output) * tariff.output +
    BigInt(counts.cacheWrite5m) * tariff.cacheWrite5m +
    BigInt(counts.cacheWrite1h) * tariff.cacheWrite1h +
    BigInt(counts.cacheRead) * tariff.cacheRead;
  return divideUp(millionths * factor * (counts.inUs ? 11n : 10n), 10_000_000n);
}

/** Above what one image can count, at the highest resolution that any model reads (about 4,800). */
const TOKENS_PER_IMAGE = 6_000;
/** Above what a provider adds around a prompt: turn markers, and the instructions for tools. */
const TOKENS_AROUND_PROMPT = 2_000;

export interface CallSize {
  /** Bytes of the request's JSON. */
  bytes: number;
  images: number;
  /** It holds a document whose text is packed, such as a PDF, so that its bytes say nothing. */
  hasPackedDocument: boolean;
  /** It asks for caching: then its input may be billed as a cache write. */
  usesCache: boolean;
  maxTokens: number;
}

/**
 * The most that a call can cost. A token stands for at least one byte of the request, except where bytes are packed; and a
 * prompt that is larger than the model's window is refused by the provider, at no cost.
 */
export function ceilingMicroUsd(size: CallSize, model: string): bigint {
  const tariff = priceOf(model);
  const byBytes = size.bytes + size.images * TOKENS_PER_IMAGE + TOKENS_AROUND_PROMPT;
  const input = size.hasPackedDocument ? tariff.contextWindow : Math.min(byBytes, tariff.contextWindow);
  const counts: TokenCounts = { input, output: size.maxTokens, cacheWrite5m: 0, cacheWrite1h: 0, cacheRead: 0, inUs: true };
  return costMicroUsd(size.usesCache ? { ...counts, input: 0, cacheWrite1h: input } : counts, model);
}

function undated(model: string): string {
  return model.replace(/-(?:\d{8}|latest)$/, "");
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function divideUp(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}
