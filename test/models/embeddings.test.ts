import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMBEDDING_DIMENSIONS, toUnitVector } from "../../shared/models/embedder.ts";

const vectorPairs = fc
  .integer({ min: 1, max: EMBEDDING_DIMENSIONS })
  .chain((width) => fc.tuple(floats(width), floats(width)))
  .filter(([a, b]) => norm(a) > 1e-3 && norm(b) > 1e-3);

describe("toUnitVector", () => {
  it("keeps the cosine of any two vectors when it pads them", () => {
    fc.assert(
      fc.property(vectorPairs, ([a, b]) => {
        const padded = dot(toUnitVector(a), toUnitVector(b));
        expect(padded).toBeCloseTo(dot(a, b) / (norm(a) * norm(b)), 5);
      }),
      { numRuns: 50 },
    );
  });

  it("gives 1536 dimensions of length 1", () => {
    const unit = toUnitVector([3, 4]);
    expect(unit).toHaveLength(1536);
    expect([...unit.slice(0, 3)].map((x) => x.toFixed(6))).toEqual(["0.600000", "0.800000", "0.000000"]);
  });

  it("leaves the zero vector zero", () => {
    expect(toUnitVector([0, 0, 0]).every((x) => x === 0)).toBe(true);
  });

  it("refuses vectors that are too wide or not finite", () => {
    expect(() => toUnitVector(new Float32Array(1537))).toThrow("1537 dimensions does not fit");
    expect(() => toUnitVector([1, Number.NaN])).toThrow("not a finite number");
    expect(() => toUnitVector([1, Number.POSITIVE_INFINITY])).toThrow("not a finite number");
  });
});

function floats(width: number): fc.Arbitrary<number[]> {
  return fc.array(fc.float({ min: -10, max: 10, noNaN: true }), { minLength: width, maxLength: width });
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
}

function norm(a: ArrayLike<number>): number {
  return Math.sqrt(dot(a, a));
}
