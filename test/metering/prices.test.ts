import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type CallSize, ceilingMicroUsd, costMicroUsd, DEFAULT_PRICE, PRICES, priceOf, type TokenCounts } from "../../shared/metering/prices.ts";

const NOTHING: TokenCounts = { input: 0, output: 0, cacheWrite5m: 0, cacheWrite1h: 0, cacheRead: 0, inUs: false };
const model = fc.constantFrom(...PRICES.keys(), "claude-haiku-4-5-20251001", "claude-haiku-5-5", "a-model-of-tomorrow");
const tokens = fc.nat(3_000_000);
const counts: fc.Arbitrary<TokenCounts> = fc.record({ input: tokens, output: tokens, cacheWrite5m: tokens, cacheWrite1h: tokens, cacheRead: tokens, inUs: fc.boolean() });

describe("the cost of a call", () => {
  test.each<[string, Partial<TokenCounts>, bigint]>([
    ["claude-sonnet-4-6", { input: 1_000_000 }, 3_000_000n],
    ["claude-sonnet-4-6", { output: 1 }, 15n],
    ["claude-sonnet-4-6", { cacheRead: 1 }, 1n],
    ["claude-sonnet-4-6", { cacheWrite5m: 4, cacheWrite1h: 1 }, 21n],
    ["claude-haiku-4-5-20251001", { input: 1_000 }, 1_000n],
    ["claude-haiku-5-5", { input: 100_000, output: 1_000 }, 10_500n],
    ["claude-haiku-5-5", { input: 90_000, cacheRead: 10_001, output: 1_000 }, 48_001n],
    ["claude-opus-5-5", { input: 1_000_000, inUs: true }, 4_400_000n],
    ["offline-extractive", { input: 1_000_000, output: 1_000_000 }, 0n],
  ])("of %s with %o is exact to the micro-USD", (name, some, cost) => {
    expect(costMicroUsd({ ...NOTHING, ...some }, name)).toBe(cost);
  });

  test("is never below the exact price, and less than a micro-USD above it", () => {
    fc.assert(
      fc.property(counts, model, (one, name) => {
        const { input, output, cacheWrite5m, cacheWrite1h, cacheRead, longPrompt } = priceOf(name);
        const prompt = one.input + one.cacheWrite5m + one.cacheWrite1h + one.cacheRead;
        const factor = longPrompt && prompt > longPrompt.above ? longPrompt.factor : 1n;
        const exact =
          (BigInt(one.input) * input +
            BigInt(one.output) * output +
            BigInt(one.cacheWrite5m) * cacheWrite5m +
            BigInt(one.cacheWrite1h) * cacheWrite1h +
            BigInt(one.cacheRead) * cacheRead) *
          factor *
          (one.inUs ? 11n : 10n);
        const cost = costMicroUsd(one, name) * 10_000_000n;
        expect(cost >= exact && cost - exact < 10_000_000n).toBe(true);
      }),
    );
  });

  test("grows with every token", () => {
    fc.assert(
      fc.property(counts, counts, model, (one, more, name) => {
        const sum = { ...one, input: one.input + more.input, output: one.output + more.output, cacheRead: one.cacheRead + more.cacheRead };
        expect(costMicroUsd(sum, name) >= costMicroUsd(one, name)).toBe(true);
      }),
    );
  });
});

describe("the ceiling of a call", () => {
  /** Every way in which a provider can count a request whose tokens are at most its bytes and what is added around it. */
  const counted = fc
    .record({ bytes: fc.nat(2_000_000), images: fc.nat(20), hasPackedDocument: fc.boolean(), usesCache: fc.boolean(), maxTokens: fc.nat(128_000) })
    .chain((size: CallSize) =>
      fc.record({
        size: fc.constant(size),
        name: model,
        fill: fc.double({ min: 0, max: 1, noNaN: true }),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
        output: fc.nat(size.maxTokens),
        inUs: fc.boolean(),
      }),
    );

  test("is never below what the call then costs", () => {
    fc.assert(
      fc.property(counted, ({ size, name, fill, share, output, inUs }) => {
        const most = size.hasPackedDocument ? priceOf(name).contextWindow : Math.min(size.bytes + size.images * 4_800 + 1_000, priceOf(name).contextWindow);
        const input = Math.floor(most * fill);
        const cached = size.usesCache ? Math.floor(input * share) : 0;
        const usage: TokenCounts = { ...NOTHING, input: input - cached, cacheWrite1h: cached, output, inUs };
        expect(costMicroUsd(usage, name) <= ceilingMicroUsd(size, name)).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  test("of a model that nobody knows is the dearest of all", () => {
    fc.assert(
      fc.property(counted, ({ size, name }) => {
        expect(ceilingMicroUsd(size, "a-model-of-tomorrow") >= ceilingMicroUsd(size, name)).toBe(true);
      }),
    );
    expect(DEFAULT_PRICE.longPrompt).toBeUndefined();
  });
});
