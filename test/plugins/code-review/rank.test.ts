import { describe, expect, it } from "vitest";
import type { Finding } from "../../../functions/plugins/code-review/change.ts";
import { inOrder } from "../../../functions/plugins/code-review/nodes/merge-results.ts";
import { rankFindings } from "../../../functions/plugins/code-review/nodes/rank.ts";

const finding = (patch: Partial<Finding>): Finding => ({
  branch: "security",
  rule: "r",
  severity: "medium",
  confidence: 0.5,
  path: "src/a.js",
  line: 1,
  message: "m",
  suggestion: "s",
  cwe: null,
  owasp: null,
  ...patch,
});

describe("ranking", () => {
  it("puts critical before high before medium before low, whatever the confidence", () => {
    const ranked = rankFindings([
      finding({ rule: "d", severity: "low", confidence: 1 }),
      finding({ rule: "a", severity: "critical", confidence: 0.1 }),
      finding({ rule: "c" }),
      finding({ rule: "b", severity: "high" }),
    ]);
    expect(ranked.map(({ rule }) => rule)).toEqual(["a", "b", "c", "d"]);
  });

  it("within a severity puts the surer first, then security before style, then path and line", () => {
    const ranked = rankFindings([
      finding({ rule: "style", branch: "style" }),
      finding({ rule: "second", line: 2 }),
      finding({ rule: "first", line: 1 }),
      finding({ rule: "sure", confidence: 0.9, path: "z.js" }),
    ]);
    expect(ranked.map(({ rule }) => rule)).toEqual(["sure", "first", "second", "style"]);
  });

  it("makes one of two rules that name the same weakness on the same line", () => {
    const ranked = rankFindings([
      finding({ rule: "weak", cwe: "CWE-95" }),
      finding({ rule: "strong", cwe: "CWE-95", severity: "high" }),
      finding({ rule: "strong", cwe: "CWE-95", line: 2 }),
      finding({ rule: "other", cwe: "CWE-79" }),
    ]);
    expect(ranked.map(({ rule, line, also }) => [rule, line, also])).toEqual([
      ["strong", 1, ["weak"]],
      ["other", 1, []],
      ["strong", 2, []],
    ]);
  });

  it("is one step milder in tests, but not about secrets", () => {
    const ranked = rankFindings([
      finding({ path: "src/a.test.ts", severity: "critical" }),
      finding({ path: "test/b.js", severity: "critical", cwe: "CWE-798" }),
      finding({ path: "src/latest/c.js", severity: "critical" }),
    ]);
    expect(ranked.map(({ path, severity }) => [path, severity])).toEqual([
      ["src/latest/c.js", "critical"],
      ["test/b.js", "critical"],
      ["src/a.test.ts", "high"],
    ]);
  });

  it("does not depend on the order in which branches end", () => {
    const all = Array.from({ length: 20 }, (_, index) => finding({ line: index % 5, rule: `r${index % 7}`, confidence: (index % 3) / 3 + 0.1 }));
    expect(rankFindings(inOrder(all.toReversed()))).toEqual(rankFindings(inOrder(all)));
  });
});
