import { readFileSync } from "node:fs";
import sarifSchema from "@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json" with { type: "json" };
import { Ajv } from "ajv";
import type { InferOutput } from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toSarif } from "../../../functions/plugins/code-review/report/sarif.ts";
import { type Data, dataOf, diffAttachment, files, newHarness } from "./review-of.ts";

const example = readFileSync(new URL("../../../functions/plugins/code-review/examples/change.diff", import.meta.url), "utf8");
// The schema of the standard, as @microsoft/jest-sarif ships it. It says draft 4 and uses nothing that later drafts read otherwise.
const { $schema: _draft, id: _id, ...schema } = sarifSchema;
const isSarif = new Ajv({ strict: false, validateFormats: false, unicodeRegExp: false }).compile(schema);
const harness = newHarness();
let result = "";
let data: InferOutput<typeof Data>;
const artifact = (name: string) => Buffer.from(harness.lastRun.artifacts.get(name)?.content ?? "").toString();

beforeAll(async () => {
  const output = await harness.run({ task: "Review this change for security problems", attachments: diffAttachment(example) });
  result = output.result;
  data = dataOf(output);
});
afterAll(() => harness.close());

describe("the example that ships with the plugin", () => {
  it("has problems of many kinds, which the static rules find without a model", () => {
    const rules = new Set(data.comments.map(({ rule }) => rule));
    for (const rule of [
      "secret-database-connection-string",
      "sql-injection",
      "tls-verification-off",
      "path-traversal",
      "insecure-random",
      "python-shell-true",
      "python-yaml-load",
      "query-in-loop",
      "valid-typeof",
      "dependency-from-url",
      "todo",
    ])
      expect(rules).toContain(rule);
    expect(data).toMatchObject({ summary: { critical: 2, high: 7 }, files_reviewed: 5, lines_changed: 42 });
  });

  it("does not show the secret that it plants", () => {
    expect(example).toContain("not-a-real-password");
    for (const text of [result, JSON.stringify(data), artifact("review.md"), artifact("review.sarif.json")]) expect(text).not.toContain("not-a-real-password");
  });

  it("reads well on a terminal", () => {
    const lines = result.split("\n");
    expect(lines[0]).toBe("## Code review: 2 critical, 7 high, 5 medium, 2 low");
    expect(result).toContain("Do not merge yet: 2 critical problems must be fixed first.");
    expect(result).toContain("1. **CRITICAL** `src/lib/database.ts:4` (secret-database-connection-string, CWE-798)");
    expect(lines.length).toBeLessThan(45);
  });

  it("has every comment on an added line of the diff", () => {
    const added = new Set<string>();
    let path = "";
    let line = 0;
    for (const text of example.split("\n")) {
      if (text.startsWith("+++ b/")) path = text.slice(6);
      else if (text.startsWith("@@")) line = Number(/\+(\d+)/.exec(text)?.[1]);
      else if (text.startsWith("+")) added.add(`${path}:${line++}`);
      else if (text.startsWith(" ")) line += 1;
    }
    for (const comment of data.comments) expect(added).toContain(`${comment.path}:${comment.line}`);
  });
});

describe("the artifacts", () => {
  it("hold SARIF 2.1.0 that the standard's schema accepts", () => {
    const sarif: unknown = JSON.parse(artifact("review.sarif.json"));
    expect(isSarif(sarif), JSON.stringify(isSarif.errors)).toBe(true);
    expect(sarif).toMatchObject({ version: "2.1.0", runs: [{ tool: { driver: { name: "aau-code-review" } }, results: { length: data.comments.length } }] });
  });

  it("hold SARIF that refers to rules which are there, also for no findings and odd names", async () => {
    expect(isSarif(JSON.parse(toSarif([], { version: "1.0.0" })))).toBe(true);
    await harness.run({ task: "Review", attachments: files({ "a b/ü#?%.js": "eval(x);\n" }) });
    const sarif = JSON.parse(artifact("review.sarif.json"));
    expect(isSarif(sarif), JSON.stringify(isSarif.errors)).toBe(true);
    const [run] = sarif.runs;
    expect(run.results[0].locations[0].physicalLocation.artifactLocation.uri).toBe("a%20b/%C3%BC%23%3F%25.js");
    for (const { ruleId, ruleIndex } of run.results) expect(run.tool.driver.rules[ruleIndex].id).toBe(ruleId);
  });

  it("are the only things that the schema test could refuse", () => {
    expect(isSarif({ version: "2.1.0", runs: [{ results: [] }] })).toBe(false);
  });
});

describe("hostile input", () => {
  const deep = `${"a(".repeat(2400)}\n${"[".repeat(4900)}\n`;
  it.each([
    ["one line of a megabyte", { "a.js": "x".repeat(1_000_000) }],
    ["brackets that never close", { "a.js": "({[(`${".repeat(600) }],
    ["depth that overflows a parser's stack", { "a.js": deep, "b.tsx": "<a>".repeat(1600) }],
    ["code that takes a parser exponential time", { "a.ts": "<a>(".repeat(30), "b.ts": "run();\neval(x);\n" }],
    ["hunks that parse in no way", { "x.diff": `diff --git a/a.js b/a.js\n--- a/a.js\n+++ b/a.js\n${"@@ -1,3 +1,3 @@\n }) => {\n+ foo(`${\n bar}]\n".repeat(2000)}` }],
    ["the words of prototypes", { __proto__x: "eval(a)", "constructor.js": "eval(a);\n", "toString/__proto__.js": "eval(a);\n" }],
    ["a name that is a path out", { "../../../etc/passwd.js": "eval(a);\n" }],
    ["controls and reordering marks in a name", { "a\u001b[2J\u202e`|<b>.js": "eval(a);\n" }],
    ["lone surrogates", { "a.js": "eval('\ud800');\n" }],
    ["a megabyte of what secrets look like", { "a.txt": "xoxb-1-".repeat(700).concat("\n").repeat(200) }],
    ["minified code", { "app.js": `${"var a=function(b){return eval(b)};".repeat(140)}\n`.repeat(200) }],
  ])("ends in a valid review for %s", { timeout: 60_000 }, async (_name, contents: Record<string, string>) => {
    const output = await harness.run({ task: "Review", attachments: files(contents) });
    expect(output.status, output.error ?? "").toBe("partial");
    expect(JSON.stringify([output.result, artifact("review.md")])).not.toMatch(/\\u001b|\u001b|\u202e/);
    expect(isSarif(JSON.parse(artifact("review.sarif.json")))).toBe(true);
    harness.assertOutputSchemaValid();
  });
});
