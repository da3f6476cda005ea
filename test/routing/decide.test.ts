import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { CommandScores } from "../../shared/routing/capability-index.ts";
import { type Candidate, decide, judge, type RoutingThresholds, thresholdsFor } from "../../shared/routing/decide.ts";

const thresholds: RoutingThresholds = {
  measured: true,
  chainThreshold: 0.8,
  confidenceMin: 0.3,
  weights: { bias: 4, strength: 4, margin: 4, background: 1 },
};

function scores(plugins: Record<string, number>, background = 0.1): CommandScores {
  return { plugins: Object.entries(plugins).map(([plugin, score]) => ({ plugin, score })), background };
}

describe("decide", () => {
  it("routes directly when one plugin is strong and alone", () => {
    const decision = decide(scores({ best: 0.6, other: 0.2 }), thresholds);
    expect(decision).toMatchObject({ kind: "direct", method: "embedding", plugin: "best" });
    expect(decision.kind === "direct" && decision.confidence).toBeGreaterThan(0.8);
  });

  it("asks when two plugins are equally strong", () => {
    const decision = decide(scores({ one: 0.35, two: 0.35, far: 0.1 }), thresholds);
    expect(decision.kind).toBe("unsure");
    expect(decision.kind === "unsure" && decision.candidates.map((candidate) => candidate.plugin)).toEqual(["one", "two", "far"]);
  });

  it("never takes one of two that are equally near, however near they are", () => {
    for (const row of [{ ...thresholds, chainThreshold: 0.6 }, thresholdsFor("offline-hybrid-1"), thresholdsFor("text-embedding-3-small")]) {
      const decision = decide(scores({ one: 0.99, two: 0.99 }), row);
      expect(decision).toMatchObject({ kind: "unsure", candidates: [{ plugin: "one" }, { plugin: "two" }] });
    }
  });

  it("says that nothing fits, and names the closest five", () => {
    const decision = decide(scores({ a: 0.08, b: 0.07, c: 0.06, d: 0.05, e: 0.04, f: 0.03 }, 0.3), thresholds);
    expect(decision).toMatchObject({ kind: "none", method: "embedding" });
    expect(decision.kind === "none" && decision.candidates.map((candidate) => candidate.plugin)).toEqual(["a", "b", "c", "d", "e"]);
  });

  it("says that nothing fits when there is no plugin at all", () => {
    expect(decide(scores({}), thresholds)).toEqual({ kind: "none", method: "embedding", candidates: [] });
  });

  it("measures the only plugin of a catalogue against the background", () => {
    expect(decide(scores({ only: 0.5 }, 0.1), thresholds).kind).toBe("direct");
    expect(decide(scores({ only: 0.2 }, 0.4), thresholds).kind).toBe("none");
  });

  it("lets the background compete with a weak second plugin too", () => {
    const near = decide(scores({ best: 0.4, other: 0.05 }, 0.38), thresholds);
    const far = decide(scores({ best: 0.4, other: 0.05 }, 0.05), thresholds);
    expect([near.kind, far.kind]).toEqual(["unsure", "direct"]);
  });

  it("gives probabilities between 0 and 1 that fall with the score, for any scores", () => {
    const cosine = fc.double({ min: -1, max: 1, noNaN: true });
    fc.assert(
      fc.property(fc.array(cosine, { minLength: 1, maxLength: 60 }), cosine, (values, background) => {
        const plugins = values.sort((a, b) => b - a).map((score, i) => ({ plugin: `p${i}`, score }));
        const decision = decide({ plugins, background }, thresholds);
        const candidates = decision.kind === "none" ? decision.candidates : decision.candidates;
        const probabilities = candidates.map((candidate) => candidate.probability);
        expect(probabilities.every((p) => p >= 0 && p <= 1)).toBe(true);
        expect(probabilities).toEqual([...probabilities].sort((a, b) => b - a));
        expect(candidates.length).toBe(Math.min(5, values.length));
      }),
    );
  });

  it("puts a probability on a line into the higher class", () => {
    const at = (probability: number): Candidate[] => [{ plugin: "one", score: 0, probability }];
    expect(judge(at(0.8), thresholds, "embedding").kind).toBe("direct");
    expect(judge(at(0.79), thresholds, "embedding").kind).toBe("unsure");
    expect(judge(at(0.3), thresholds, "embedding").kind).toBe("unsure");
    expect(judge(at(0.29), thresholds, "embedding").kind).toBe("none");
  });
});

describe("thresholdsFor", () => {
  it("has a row for both embedding models, and says which was measured", () => {
    expect(thresholdsFor("offline-hybrid-1").measured).toBe(true);
    expect(thresholdsFor("text-embedding-3-small").confidenceMin).toBeLessThan(thresholdsFor("text-embedding-3-small").chainThreshold);
  });

  it("lets the operator's own lines win, one by one", () => {
    const row = thresholdsFor("offline-hybrid-1");
    expect(thresholdsFor("offline-hybrid-1", { chainThreshold: 0.99 })).toEqual({ ...row, chainThreshold: 0.99 });
    expect(thresholdsFor("offline-hybrid-1", { confidenceMin: 0 })).toEqual({ ...row, confidenceMin: 0 });
  });

  it("refuses a model that was never calibrated", () => {
    expect(() => thresholdsFor("toString")).toThrow("no routing thresholds");
    expect(() => thresholdsFor("new-model")).toThrow("npm run calibrate");
  });

  it("refuses lines that are not probabilities or stand the wrong way round", () => {
    expect(() => thresholdsFor("offline-hybrid-1", { chainThreshold: 75 })).toThrow("CHAIN_THRESHOLD");
    expect(() => thresholdsFor("offline-hybrid-1", { confidenceMin: Number.NaN })).toThrow("CONFIDENCE_MIN");
    expect(() => thresholdsFor("offline-hybrid-1", { chainThreshold: 0.2, confidenceMin: 0.5 })).toThrow("must not be above");
  });
});
