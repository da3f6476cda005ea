import { describe, expect, it } from "vitest";
import type { Line } from "../../../functions/plugins/code-review/change.ts";
import { lintScripts } from "../../../functions/plugins/code-review/rules/lint-scripts.ts";
import { newAllowance, rebuildFragments } from "../../../functions/plugins/code-review/rules/rebuild-fragments.ts";

const breathe = async () => {};
const signal = new AbortController().signal;
const lineOf = (text: string, index: number): Line => ({ number: index + 1, text, isChanged: true });

async function evalLines(path: string, text: string) {
  const rows = text.split("\n").map((line, index) => ({ kind: line.startsWith("~") ? ("context" as const) : ("added" as const), line: index + 1, text: line.replace(/^~/, "") }));
  const { fragments, unseen } = await rebuildFragments({ path, hunks: [{ rows }] }, newAllowance(), breathe);
  const { messages } = await lintScripts([{ path, fragments }], { "no-eval": "error" }, signal);
  return { unseen, lines: messages.map((message) => message.line) };
}

describe("rebuilding code from a hunk", () => {
  it.each([
    ["the end of one method and the start of the next", "a.ts", "    first();\n  }\n\n  async second(a: string) {\n    eval(a);", [5]],
    ["an else branch inside a callback", "a.js", "  } else {\n    eval(b);\n  }\n});\n\nit('x', async () => {", [2]],
    ["a catch", "a.js", "  } catch (e) {\n    eval(e);\n  }\n}", [2]],
    ["the end of a block comment before class members", "a.ts", "   * more\n   */\n  static x = 1;\n  run() { return eval(1); }", [4]],
    ["cases of a switch", "a.js", "    case 1:\n      eval(2);\n      break;\n    case 2:", [2]],
    ["members of an object", "a.js", "  a: 1,\n  b: eval(3),\n  c() {},", [2]],
    ["a chain of calls", "a.js", "  .then((x) => {\n    eval(x);\n  })", [2]],
    ["arguments of a call that does not end", "a.ts", "    foo(a,\n      eval(b),", [2]],
    ["methods of an object in an object", "a.js", "  },\n  computed: {\n    foo() {\n      return eval(1);\n    },", [4]],
    ["the end of a component", "a.tsx", "  }\n\n  render() {\n    return (\n      <div>{eval(1)}</div>\n    );\n  }\n}\n\nexport default X;", [5]],
    ["an element", "a.jsx", "    <p onClick={() => eval(1)}>\n    </p>", [1]],
    ["the end of a template string", "a.js", "  text`;\n  eval(1);", [2]],
    ["the start of a template string", "a.js", "const q = `\n  select ${eval(a)}", [2]],
    ["types around it", "a.ts", "  private readonly x?: Map<string, number>;\n  get y(): string { return eval('1') as string; }", [2]],
    ["a return outside of its function", "a.js", "  return await eval(x);\n}", [1]],
  ])("reads %s", async (_name, path, text, lines) => {
    expect(await evalLines(path, text)).toEqual({ unseen: 0, lines });
  });

  it("drops unchanged lines at the edge that do not parse", async () => {
    expect(await evalLines("a.js", "~  ?!broken(\neval(x);\n~ and ( broken")).toEqual({ unseen: 0, lines: [2] });
  });

  it("counts the changed lines that nothing can be made of", async () => {
    expect(await evalLines("a.js", "let x = = ;\nclass {{ ]")).toEqual({ unseen: 2, lines: [] });
  });

  it("points only at changed lines", async () => {
    expect(await evalLines("a.js", "~eval(1);\neval(2);\n~eval(3);")).toEqual({ unseen: 0, lines: [2] });
  });

  it("stops trying when its allowance is used up", async () => {
    const rows = Array.from({ length: 400 }, (_, index) => ({ kind: "added" as const, line: index + 1, text: "let = = } ] )" }));
    const allowance = { attempts: 50_000, accepted: 1_000_000, timeouts: 3 };
    const { unseen } = await rebuildFragments({ path: "a.js", hunks: rows.map((row) => ({ rows: [row] })) }, allowance, breathe);
    expect(unseen).toBe(400);
    expect(allowance.attempts).toBeGreaterThan(-2000);
  });

  it("cuts a long file between statements and loses no line", async () => {
    const text = Array.from({ length: 4000 }, (_, index) => (index % 1000 === 999 ? "eval(x);" : `var v${index};`)).join("\n");
    expect((await evalLines("a.js", text)).lines).toEqual([1000, 2000, 3000, 4000]);
  });

  it("reports a function's complexity at the first changed line inside", async () => {
    const lines = ["function f(a) {", "  if (a) b();", "  if (c) d();", "}"].map((text, index) => ({ ...lineOf(text, index), isChanged: index === 2 }));
    const { messages } = await lintScripts([{ path: "a.js", fragments: [{ head: "", lines, tail: "" }] }], { complexity: ["error", 2] }, signal);
    expect(messages.map(({ rule, line }) => [rule, line])).toEqual([["complexity", 3]]);
  });

  it("is not switched off by comments in the code", async () => {
    expect((await evalLines("a.js", "/* eslint-disable */ /* eslint no-eval: 0 */\neval(1); // eslint-disable-line")).lines).toEqual([2]);
  });

  it("stops when the task is cancelled", async () => {
    await expect(lintScripts([{ path: "a.js", fragments: [{ head: "", lines: [lineOf("a", 0)], tail: "" }] }], {}, AbortSignal.abort())).rejects.toThrow();
  });
});
