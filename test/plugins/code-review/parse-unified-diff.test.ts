import { describe, expect, it } from "vitest";
import { looksLikeDiff, parseUnifiedDiff } from "../../../functions/plugins/code-review/diff/parse-unified-diff.ts";
import { diffOf } from "./review-of.ts";

const only = (text: string) => {
  const { files } = parseUnifiedDiff(text);
  expect(files).toHaveLength(1);
  return files[0];
};

describe("reading a unified diff", () => {
  it("numbers added and unchanged lines on the new side, and gives removed ones no number", () => {
    const file = only(diffOf("a.js", 7, [" one", "-two", "+deux", "+trois", " four"]));
    expect(file?.hunks[0]?.rows.map(({ kind, line }) => [kind, line])).toEqual([
      ["context", 7],
      ["removed", null],
      ["added", 8],
      ["added", 9],
      ["context", 10],
    ]);
    expect(file).toMatchObject({ path: "a.js", status: "modified", added: 2, removed: 1, isWhole: false });
  });

  it("names a renamed file by its new name and keeps the old one", () => {
    const file = only(
      "diff --git a/old name.js b/lib/new.js\nsimilarity index 90%\nrename from old name.js\nrename to lib/new.js\n--- a/old name.js\n+++ b/lib/new.js\n@@ -1 +1 @@\n-a\n+b\n",
    );
    expect(file).toMatchObject({ path: "lib/new.js", previousPath: "old name.js", status: "renamed" });
  });

  it("tells deleted, new and binary files apart", () => {
    const { files } = parseUnifiedDiff(
      "diff --git a/d.js b/d.js\ndeleted file mode 100644\n--- a/d.js\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\ndiff --git a/n.js b/n.js\nnew file mode 100644\n--- /dev/null\n+++ b/n.js\n@@ -0,0 +1 @@\n+new\ndiff --git a/i.png b/i.png\nindex 1..2 100644\nBinary files a/i.png and b/i.png differ\ndiff --git a/p.bin b/p.bin\nGIT binary patch\nliteral 4\nLc${NkU|;|M00aO5\n\n",
    );
    expect(files.map(({ path, status, isWhole }) => [path, status, isWhole])).toEqual([
      ["d.js", "deleted", false],
      ["n.js", "added", true],
      ["i.png", "binary", false],
      ["p.bin", "binary", false],
    ]);
  });

  it("decodes quoted names, with and without bytes in octal", () => {
    expect(only('diff --git "a/\\303\\244 \\"q\\".js" "b/\\303\\244 \\"q\\".js"\n--- "a/\\303\\244 \\"q\\".js"\n+++ "b/\\303\\244 \\"q\\".js"\n@@ -1 +1 @@\n-a\n+b\n')?.path).toBe(
      'ä "q".js',
    );
  });

  it("does not take the note about a missing newline for a line", () => {
    const file = only("--- a/x.js\n+++ b/x.js\n@@ -1 +1,2 @@\n-old\n\\ No newline at end of file\n+new\n+last\n\\ No newline at end of file\n");
    expect(file?.hunks[0]?.rows.map((row) => row.text)).toEqual(["old", "new", "last"]);
  });

  it("reads CRLF diffs without leaving carriage returns in lines or names", () => {
    const file = only(diffOf("a.js", 1, [" one", "+two"]).replaceAll("\n", "\r\n"));
    expect(file?.path).toBe("a.js");
    expect(file?.hunks[0]?.rows.map((row) => row.text)).toEqual(["one", "two"]);
  });

  it("reads added lines that look like headers as lines", () => {
    const file = only(diffOf("q.sql", 1, ["--- drop", "+++ more", "+select 1"]));
    expect(file?.hunks[0]?.rows.map((row) => row.text)).toEqual(["-- drop", "++ more", "select 1"]);
  });

  it("lets no header of one file swallow the next file", () => {
    const lying = diffOf("a.js", 1, ["+x"]).replace("+1,1 @@", "+1,500 @@");
    expect(parseUnifiedDiff(lying + diffOf("b.js", 1, ["+eval(y)"])).files.map((file) => file.path)).toEqual(["a.js", "b.js"]);
  });

  it("says which added lines no hunk header announces", () => {
    const { notes } = parseUnifiedDiff(`${diffOf("a.js", 1, ["+x"])}+hidden()\n`);
    expect(notes.join()).toContain("a.js (1)");
  });

  it("cuts endless lines and says so", () => {
    const { files, notes } = parseUnifiedDiff(diffOf("a.js", 1, [`+${"x".repeat(1_000_000)}`]));
    expect(files[0]?.hunks[0]?.rows[0]?.text.length).toBeLessThanOrEqual(5000);
    expect(notes.join()).toContain("longer than 5000");
  });

  it("takes control characters and marks that reorder text out of names", () => {
    expect(only(diffOf("a\u001b[31m\u202Eb.js", 1, ["+x"]))?.path).not.toMatch(/[\u001b\u202e]/);
  });

  it.each([
    ["empty", ""],
    ["prose", "please review\n- this\n+ that\n"],
    ["headers only", "--- a\n+++ b\n"],
    ["broken numbers", "--- a/x\n+++ b/x\n@@ -1 +99999999999999999999 @@\n+x\n"],
    ["only newlines", "\n".repeat(10_000)],
  ])("survives %s", (_name, text) => {
    expect(parseUnifiedDiff(text).files.every((file) => file.added === 0)).toBe(true);
  });

  it("knows a diff from a text", () => {
    expect(looksLikeDiff(diffOf("a.js", 1, ["+x"]))).toBe(true);
    expect(looksLikeDiff("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")).toBe(true);
    expect(looksLikeDiff("# Title\n--- \n+++ nothing\n")).toBe(false);
  });
});
