import { describe, expect, it } from "vitest";
import { ConditionError, MAX_CONDITION_LENGTH, parseCondition } from "../../shared/execution/condition.ts";

const STEPS = {
  review: { status: "partial", confidence: 0.8, data: { total: 3, list: [1, 2, 3], none: null, text: `${"a".repeat(40)}b`, many: Array.from({ length: 20_000 }, (_, at) => at) } },
  "with-dash": { status: "success", confidence: 1, data: null },
};
const decide = (text: string) => parseCondition(text).isTrue(STEPS);

describe("a condition", () => {
  it.each([
    ['steps.review.status == "partial"', true],
    ["steps.review.confidence >= 0.5 && steps.review.data.total > 5", false],
    ["steps.review.data.list.exists(x, x == 2)", true],
    ["size(steps.review.data.list) == 3", true],
    ["has(steps.review.data.missing) && steps.review.data.missing > 1", false],
    ['steps["with-dash"].data == null', true],
    ["true", true],
  ])("%s is %s", (text, expected) => {
    expect(decide(text)).toBe(expected);
  });

  it.each([
    ["steps.other.status == 'success'", "No such key: other"],
    ["steps.review.data.missing == 1", "No such key: missing"],
    ["steps.review.data.constructor == 1", "No such key: constructor"],
    ["steps.review.data.__proto__ == 1", "No such key: __proto__"],
    ["steps.review.data.total", "neither true nor false"],
    ["steps.review.data.text.matches('(a+)+$')", "takes too long"],
    ["steps.review.data.many.exists(x, steps.review.data.many.exists(y, x + y == -1.5))", "takes too long"],
  ])("that cannot be decided says why: %s", (text, why) => {
    const condition = parseCondition(text);
    expect(() => condition.isTrue(STEPS)).toThrow(ConditionError);
    expect(() => condition.isTrue(STEPS)).toThrow(why);
  });

  it.each([
    ["1 +", "Unexpected token"],
    ["'text'", "of type string"],
    ["nobody == 1", "nobody"],
    ["process.exit(1)", "process"],
    ["true".padEnd(MAX_CONDITION_LENGTH + 1), "at most"],
    [`${"(".repeat(30)}true${")".repeat(30)}`, "maxDepth"],
    [`${"true && ".repeat(60)}true`, "max"],
    ["cel.bind(a, [1], cel.bind(b, a + a, size(b) == 2))", "bind()"],
    ["steps.review.data.list.map(x, [x, x]).size() > 1", "map()"],
  ])("is refused before it runs: %s", (text, why) => {
    expect(() => parseCondition(text)).toThrow(ConditionError);
    expect(() => parseCondition(text)).toThrow(why);
  });
});
