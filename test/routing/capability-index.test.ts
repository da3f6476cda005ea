import { describe, expect, it } from "vitest";
import { toUnitVector } from "../../shared/models/embedder.ts";
import { buildCapabilityIndex, type IndexedPlugin, scoreCommand } from "../../shared/routing/capability-index.ts";

const axis = (i: number) => toUnitVector(Array.from({ length: 1536 }, (_, d) => (d === i ? 1 : 0)));
const mixed = (parts: Record<number, number>) => toUnitVector(Array.from({ length: 1536 }, (_, d) => parts[d] ?? 0));
const plugin = (name: string, ...vectors: Float32Array[]): IndexedPlugin => ({
  plugin: name,
  texts: vectors.map((_, i) => `sentence ${i}`),
  vectors,
});

describe("scoreCommand", () => {
  it("puts the nearest plugin first", () => {
    const index = buildCapabilityIndex("m", [plugin("near-y", axis(1)), plugin("near-x", axis(0))], []);
    expect(scoreCommand(index, mixed({ 0: 4, 1: 3 })).plugins).toEqual([
      { plugin: "near-x", score: expect.closeTo(0.8, 5) },
      { plugin: "near-y", score: expect.closeTo(0.6, 5) },
    ]);
  });

  it("weighs the best sentence three to one with the second best, and ignores the others", () => {
    const index = buildCapabilityIndex("m", [plugin("three", axis(9), mixed({ 0: 4, 1: 3 }), axis(0))], []);
    expect(scoreCommand(index, axis(0)).plugins[0]?.score).toBeCloseTo((3 * 1 + 0.8) / 4, 5);
  });

  it("takes the only sentence of a plugin as it is", () => {
    const index = buildCapabilityIndex("m", [plugin("single", axis(0))], []);
    expect(scoreCommand(index, axis(0)).plugins).toEqual([{ plugin: "single", score: 1 }]);
  });

  it("scores the background beside the plugins", () => {
    const index = buildCapabilityIndex("m", [plugin("one", axis(0))], [axis(1), axis(2)]);
    expect(scoreCommand(index, axis(1)).background).toBeCloseTo(0.75, 5);
  });

  it("does not depend on the order of registration, even between equals", () => {
    const plugins = [plugin("bbb", axis(0)), plugin("aaa", axis(0)), plugin("ccc", axis(1))];
    const forwards = scoreCommand(buildCapabilityIndex("m", plugins, []), axis(0));
    const backwards = scoreCommand(buildCapabilityIndex("m", [...plugins].reverse(), []), axis(0));
    expect(forwards).toEqual(backwards);
    expect(forwards.plugins.map((score) => score.plugin)).toEqual(["aaa", "bbb", "ccc"]);
  });

  it("gives nothing for an empty catalogue, and leaves out a plugin without sentences", () => {
    expect(scoreCommand(buildCapabilityIndex("m", [], []), axis(0))).toEqual({ plugins: [], background: 0 });
    expect(buildCapabilityIndex("m", [plugin("silent")], []).plugins).toEqual([]);
  });

  it("finds a command without any content near nothing", () => {
    const index = buildCapabilityIndex("m", [plugin("one", axis(0))], [axis(1)]);
    expect(scoreCommand(index, new Float32Array(1536))).toEqual({ plugins: [{ plugin: "one", score: 0 }], background: 0 });
  });

  it("gives every one of 10,000 sentences its say", () => {
    const many = Array.from({ length: 2_000 }, (_, i) => plugin(`plugin-${i}`, ...[0, 1, 2, 3, 4].map((j) => mixed({ [(i + j) % 1536]: 1, [(i * 7 + j) % 1536]: 0.5 }))));
    many.push(plugin("the-one", mixed({ 5: 1, 6: 2, 7: 3 })));
    expect(scoreCommand(buildCapabilityIndex("m", many, []), mixed({ 5: 1, 6: 2, 7: 3 })).plugins[0]).toEqual({
      plugin: "the-one",
      score: expect.closeTo(1, 5),
    });
  });

  it("refuses vectors of another width", () => {
    expect(() => buildCapabilityIndex("m", [plugin("narrow", new Float32Array(768))], [])).toThrow("768 dimensions instead of 1536");
    expect(() => scoreCommand(buildCapabilityIndex("m", [], []), new Float32Array(768))).toThrow("768 dimensions instead of 1536");
  });
});
