/** A file that came without a diff: every line of it counts as changed. */
import type { ChangedFile, Row } from "../change.ts";
import { printable } from "../printable.ts";
import { isGeneratedPath, isTestPath, languageOf } from "./file-kind.ts";
import { MAX_LINE } from "./parse-unified-diff.ts";

export function wholeFile(name: string, text: string): { file: ChangedFile; notes: string[] } {
  const path =
    printable(name)
      .replaceAll("\n", " ")
      .replace(/^(?:\.?\/)+/, "") || "file";
  const raw = text.replace(/\n$/, "").split("\n");
  const long = raw.filter((line) => line.length > MAX_LINE).length;
  const rows: Row[] = raw.map((line, index) => ({ kind: "added", line: index + 1, text: (line.endsWith("\r") ? line.slice(0, -1) : line).slice(0, MAX_LINE) }));
  return {
    file: {
      path,
      previousPath: null,
      status: "added",
      language: languageOf(path),
      isTest: isTestPath(path),
      isGenerated: isGeneratedPath(path),
      isWhole: true,
      hunks: [{ rows }],
      added: rows.length,
      removed: 0,
    },
    notes: long > 0 ? [`${long} lines of ${path} were longer than ${MAX_LINE} characters and were cut there.`] : [],
  };
}
