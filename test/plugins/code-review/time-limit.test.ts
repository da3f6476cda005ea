import { expect, it } from "vitest";
import { makeTimeLimit, TIMED_OUT } from "../../../functions/plugins/code-review/time-limit.ts";

it("gives what the work gives, and throws what it throws", () => {
  const limited = makeTimeLimit();
  expect(limited(1000, () => [1, 2])).toEqual([1, 2]);
  expect(() =>
    limited(1000, () => {
      throw new TypeError("mine");
    }),
  ).toThrow(new TypeError("mine"));
  expect(limited(1000, () => "again")).toBe("again");
});

it.each([
  [
    "an endless loop",
    () => {
      for (;;);
    },
  ],
  [
    "an endless loop that catches everything",
    () => {
      for (;;)
        try {
          for (;;);
        } catch {
          /* goes on */
        }
    },
  ],
  ["a regular expression that explodes", () => /^(a+)+$/.test(`${"a".repeat(60)}!`)],
])("ends %s", (_name, work: () => unknown) => {
  expect(makeTimeLimit()(50, work)).toBe(TIMED_OUT);
});
