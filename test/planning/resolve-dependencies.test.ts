import { describe, expect, it } from "vitest";
import { Refusal } from "../../shared/errors.ts";
import { type Releases, resolvePlan } from "../../shared/planning/resolve-dependencies.ts";
import type { RequestedStep } from "../../shared/planning/submitted-plan.ts";

/** `{"a@1.0.0": {b: "^1"}}`: a catalogue by plugin, version and what that version depends on. */
function releases(all: Record<string, Record<string, string>>): Releases {
  const split = Object.entries(all).map(([key, needs]) => ({ plugin: key.split("@")[0] ?? "", version: key.split("@")[1] ?? "", needs }));
  return {
    versionsOf: (plugin) => split.filter((one) => one.plugin === plugin).map(({ version }) => version),
    manifestOf(plugin, version) {
      const found = split.find((one) => one.plugin === plugin && one.version === version);
      return found && { dependencies: Object.entries(found.needs).map(([name, range]) => ({ name, version: range })) };
    },
  };
}
const step = (id: string, plugin = id, more: Partial<RequestedStep> = {}): RequestedStep => ({ id, plugin, needs: [], ...more });
/** `id:plugin@version<needs` in the order of the plan. */
const shown = (all: Record<string, Record<string, string>>, ...steps: RequestedStep[]) =>
  resolvePlan(releases(all), steps).map(({ id, plugin, version, needs }) => `${id}:${plugin}@${version}${needs.length > 0 ? `<${needs.join(",")}` : ""}`);
function refused(all: Record<string, Record<string, string>>, ...steps: RequestedStep[]): Refusal {
  try {
    throw new Error(`not refused: ${shown(all, ...steps)}`);
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

describe("versions", () => {
  const all = { "one@1.0.0": {}, "one@1.10.0": {}, "one@1.9.0": {}, "one@2.0.0": {}, "one@3.0.0-rc.1": {} };
  it.each([
    [undefined, "2.0.0"],
    ["^1.0.0", "1.10.0"],
    ["<1.10", "1.9.0"],
    ["*", "2.0.0"],
    [">=1.2.0 <2.0.0", "1.10.0"],
    ["3.0.0-rc.1", "3.0.0-rc.1"],
    [">=1 || >=3.0.0-rc.0", "2.0.0"],
  ])("%s is the highest release that fits", (version, picked) => {
    expect(shown(all, step("main", "one", { version }))).toEqual([`main:one@${picked}`]);
  });

  it("are a pre-release only where there is nothing else", () => {
    expect(shown({ "one@0.1.0-a": {}, "one@0.1.0-b": {} }, step("main", "one"))).toEqual(["main:one@0.1.0-b"]);
  });

  it("that nobody has are refused with those that there are", () => {
    expect(refused(all, step("main", "one", { version: "^9" }))).toMatchObject({
      code: "VERSION_UNSATISFIED",
      details: { plugin: "one", range: "^9", available: expect.arrayContaining(["2.0.0"]) },
    });
    expect(refused(all, step("main", "two"))).toMatchObject({ code: "NOT_FOUND" });
    expect(refused({ "a@1.0.0": { gone: "^1" } }, step("main", "a"))).toMatchObject({ code: "VERSION_UNSATISFIED", details: { plugin: "gone", available: [] } });
  });
});

describe("what a plugin depends on", () => {
  it("becomes a step before it, in its highest release that fits, and what that depends on before both", () => {
    const all = { "a@1.0.0": { b: ">=1.2.0,<2.0.0" }, "b@1.2.0": {}, "b@1.5.0": { c: "*" }, "b@2.0.0": {}, "c@0.3.0": {} };
    expect(shown(all, step("main", "a"))).toEqual(["c:c@0.3.0", "b:b@1.5.0<c", "main:a@1.0.0<b"]);
  });

  it("is shared by all that depend on it", () => {
    const all = { "a@1.0.0": { b: "*", c: "*" }, "b@1.0.0": { d: "*" }, "c@1.0.0": { d: "^1" }, "d@1.1.0": {} };
    expect(shown(all, step("main", "a"))).toEqual(["d:d@1.1.0", "b:b@1.0.0<d", "c:c@1.0.0<d", "main:a@1.0.0<b,c"]);
  });

  it("is a version that fits all of them, also where an earlier choice has to be taken back", () => {
    const all = { "a@1.0.0": { b: "*", c: "*" }, "b@1.0.0": { d: ">=1" }, "c@1.0.0": { d: "<2" }, "d@1.4.0": {}, "d@2.0.0": { e: "*" }, "e@1.0.0": {} };
    expect(shown(all, step("main", "a"))).toEqual(["d:d@1.4.0", "b:b@1.0.0<d", "c:c@1.0.0<d", "main:a@1.0.0<b,c"]);
    expect(refused({ ...all, "c@1.0.0": { d: "<1" } }, step("main", "a"))).toMatchObject({ code: "VERSION_UNSATISFIED", details: { plugin: "d", range: ">=1 and <1" } });
  });

  it("is the step that the plan has already", () => {
    const all = { "a@1.0.0": { b: "^1" }, "b@1.0.0": {}, "b@2.0.0": {} };
    expect(shown(all, step("review", "b"), step("file", "a", { needs: ["review"] }))).toEqual(["review:b@1.0.0", "file:a@1.0.0<review"]);
    expect(shown(all, step("file", "a"), step("review", "b"))).toEqual(["review:b@1.0.0", "file:a@1.0.0<review"]);
  });

  it("is a step of its own beside one whose version the caller wants otherwise, or that comes later", () => {
    const all = { "a@1.0.0": { b: "^1" }, "b@1.0.0": {}, "b@2.0.0": {} };
    expect(shown(all, step("review", "b", { version: "^2" }), step("file", "a"))).toEqual(["review:b@2.0.0", "b:b@1.0.0", "file:a@1.0.0<b"]);
    expect(shown(all, step("file", "a"), step("again", "b", { needs: ["file"] }))).toEqual(["b:b@1.0.0", "file:a@1.0.0<b", "again:b@2.0.0<file"]);
  });

  it("takes an id that is free, and is told what the step is told that depends on it", () => {
    const plan = resolvePlan(releases({ "a@1.0.0": { b: "*" }, "b@1.0.0": {} }), [step("b", "a", { command: "do this" })]);
    expect(plan.map(({ id, command }) => [id, command])).toEqual([
      ["b-2", "do this"],
      ["b", "do this"],
    ]);
  });

  it("in a circle is refused with the path", () => {
    expect(refused({ "a@1.0.0": { b: "*" }, "b@1.0.0": { c: "*" }, "c@1.0.0": { b: "*" } }, step("main", "a"))).toMatchObject({
      code: "CIRCULAR_DEPENDENCY",
      message: expect.stringContaining("b → c → b"),
      details: { path: ["b", "c", "b"] },
    });
    expect(refused({ "a@1.0.0": { a: "*" } }, step("main", "a"))).toMatchObject({ details: { path: ["a", "a"] } });
    expect(refused({ "a@1.0.0": { b: "*" }, "b@1.0.0": { a: "*" } }, step("x", "a"), step("y", "b"))).toMatchObject({ code: "CIRCULAR_DEPENDENCY" });
  });

  it("is no circle where only another version closes it", () => {
    const all = { "a@1.0.0": { b: "<2" }, "b@1.0.0": {}, "b@2.0.0": { a: "*" } };
    expect(shown(all, step("main", "a"))).toEqual(["b:b@1.0.0", "main:a@1.0.0<b"]);
  });

  it("has a limit", () => {
    const chain = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`p${i}@1.0.0`, { [`p${i + 1}`]: "*" }]));
    expect(refused({ ...chain, "p40@1.0.0": {} }, step("main", "p0"))).toMatchObject({ code: "INVALID_INPUT" });
  });
});

it("orders steps so that each comes behind what it needs, and leaves what was asked for as it is", () => {
  const asked = [step("c", "x", { needs: ["b"] }), step("b", "x", { needs: ["a"] }), step("a", "x"), step("d", "x")];
  const before = structuredClone(asked);
  expect(shown({ "x@1.0.0": {} }, ...asked)).toEqual(["a:x@1.0.0", "b:x@1.0.0<a", "c:x@1.0.0<b", "d:x@1.0.0"]);
  expect(asked).toEqual(before);
});
