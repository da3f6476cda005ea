import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { commandDigest, normaliseCommand, parseCachedRoute, routeCacheKey } from "../../shared/routing/route-cache.ts";

const key = (command: string) => routeCacheKey("tenant-1", "7", commandDigest(command));

describe("routeCacheKey", () => {
  it("names tenant and generation, and hides the command behind a hash", () => {
    expect(key("Review my secret plan")).toMatch(/^route:tenant-1:7:[0-9a-f]{64}$/);
  });

  it("changes with the tenant, the generation and the command", () => {
    const digest = commandDigest("review");
    const keys = [key("review"), routeCacheKey("tenant-2", "7", digest), routeCacheKey("tenant-1", "8", digest), key("deploy")];
    expect(new Set(keys).size).toBe(4);
  });

  it("reads nothing from a cache entry that is not a route", () => {
    for (const raw of [null, "", "{", "null", '{"p":"x"}', '{"p":1,"c":1,"m":"m","l":null,"k":[]}', '{"p":"x","c":1,"m":"m"}']) expect(parseCachedRoute(raw)).toBeNull();
    const route = { p: "code-review", c: 0.9, m: "m", l: null, k: [{ plugin: "code-review", score: 0.5, probability: 0.9 }] };
    expect(parseCachedRoute(JSON.stringify(route))).toEqual(route);
  });

  it("is the same for ways of typing the same command", () => {
    for (const same of ["  review   this\n\tchange  ", "Review this change", "review this\u00a0change"]) expect(key(same)).toBe(key("review this change"));
    expect(key("cafe\u0301 report")).toBe(key("café report"));
  });

  it("keeps apart what may mean something else", () => {
    const pairs = [
      ["IT report", "it report"],
      ["ask US sales", "ask us sales"],
      ["x² chart", "x2 chart"],
      ["re-view it", "review it"],
      ["do not ship", "do ship"],
      ["résumé", "resume"],
      ["review a.ts", "review A.ts"],
      ["5 % up", "5 up"],
      ["no, tests", "no tests"],
    ];
    for (const [one, other] of pairs) expect(key(one ?? "")).not.toBe(key(other ?? ""));
  });

  it("normalises once and for all", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 80 }), (command) => {
        const normal = normaliseCommand(command);
        expect(normaliseCommand(normal)).toBe(normal);
      }),
    );
  });
});
