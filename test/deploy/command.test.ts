import { parseArgs } from "node:util";
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from "vitest";
import { asCommand, Misuse, Trouble, wholeNumber } from "../../scripts/command.ts";
import { ConfigError } from "../../shared/host/config.ts";

const USAGE = "npm run example -- [--tasks <number>]";

describe("a command line", () => {
  let out: MockInstance;
  let err: MockInstance;
  const said = (spy: MockInstance) => spy.mock.calls.flat().join("\n");
  const run = async (args: string[], main: (args: string[]) => Promise<number> = async () => 0) => {
    await asCommand(USAGE, main, args);
    const code = process.exitCode;
    process.exitCode = undefined;
    return code;
  };
  beforeEach(() => {
    out = vi.spyOn(console, "log").mockImplementation(() => {});
    err = vi.spyOn(console, "error").mockImplementation(() => {});
  });
  afterEach(() => vi.restoreAllMocks());

  it("says how it is used, and does nothing else", async () => {
    const main = vi.fn(async () => 1);
    expect(await run(["--help"], main)).toBeUndefined();
    expect([said(out), main.mock.calls.length]).toEqual([USAGE, 0]);
  });

  it("ends with what its work came to", async () => {
    expect(await run([], async () => 1)).toBe(1);
    expect(said(err)).toBe("");
  });

  it.each([
    ["an option that it does not know", async (args: string[]) => Number(parseArgs({ args, options: {} })), ["--taks"], "Unknown option '--taks'"],
    ["a number that is none", async () => wholeNumber("tasks", "-3"), [], "--tasks must be a whole number."],
    ["a word that it does not know", async () => Promise.reject(new Misuse("There is no fly.")), ["fly"], "There is no fly."],
  ])("refuses %s with 2 and the usage", async (_what, main, args, message) => {
    expect(await run(args, main)).toBe(2);
    expect(said(err)).toBe(`${message}\n\n${USAGE}`);
  });

  it.each([
    ["a setting", new ConfigError("DATABASE_URL is not set."), "DATABASE_URL is not set."],
    [
      "a server that is away",
      new Error("fetch failed", { cause: Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" }) }),
      "fetch failed: connect ECONNREFUSED",
    ],
    [
      "one that is away at every address",
      Object.assign(new AggregateError([new Error("connect ECONNREFUSED ::1"), new Error("connect ECONNREFUSED 127.0.0.1")], ""), { code: "ECONNREFUSED" }),
      "connect ECONNREFUSED ::1; connect ECONNREFUSED 127.0.0.1",
    ],
    ["one that refuses", new Trouble("There is no key named x."), "There is no key named x."],
  ])("tells of %s in a sentence, with 1", async (_what, error, message) => {
    expect(await run([], () => Promise.reject(error))).toBe(1);
    expect(said(err)).toBe(message);
  });

  it("shows where it happened when nobody foresaw it", async () => {
    const bug = new TypeError("x is not a function");
    expect(await run([], () => Promise.reject(bug))).toBe(1);
    expect(err.mock.calls).toEqual([[bug]]);
  });
});
