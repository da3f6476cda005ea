/**
 * Reads a unified diff (git's or plain) into files and rows. `parse-diff` does the reading; what stands around it is what it leaves
 * open: hostile sizes, CRLF, git's quoted names, and hunk headers that promise fewer lines than follow.
 */
import parseDiff from "parse-diff";
import type { ChangedFile, Hunk, Row } from "../change.ts";
import { printable } from "../printable.ts";
import { isGeneratedPath, isTestPath, languageOf } from "./file-kind.ts";

/** Longer lines are cut: no one reads them, and rules with regular expressions must stay linear in practice. */
export const MAX_LINE = 5000;
/** GitHub's own limit for one pull request. */
export const MAX_FILES = 3000;
const MAX_HEADER = 600;

export interface ParsedDiff {
  files: ChangedFile[];
  /** Sentences for the reader about what could not be read as it stands. */
  notes: string[];
}

/** Whether a text is a diff, judged by what every unified diff has: a hunk header after a file header. */
export function looksLikeDiff(text: string): boolean {
  const start = text.slice(0, 200_000);
  return /^diff --git \S/m.test(start) || (/^--- \S/m.test(start) && /^\+\+\+ \S/m.test(start) && /^@@ -\d/m.test(start));
}

/** Git's C-style quoting of bytes that are not printable ASCII: `\303\244` is one letter. */
function unquoted(path: string): string {
  if (!/\\(?:[0-7]{3}|["\\])/.test(path)) return path;
  const bytes: number[] = [];
  for (let at = 0; at < path.length; ) {
    const octal = /^\\([0-3][0-7]{2})/.exec(path.slice(at, at + 4));
    const isEscape = !octal && path[at] === "\\" && (path[at + 1] === '"' || path[at + 1] === "\\");
    const letter = String.fromCodePoint(path.codePointAt(isEscape ? at + 1 : at) ?? 0xfffd);
    bytes.push(...(octal?.[1] ? [Number.parseInt(octal[1], 8)] : new TextEncoder().encode(letter)));
    at += octal ? 4 : letter.length + (isEscape ? 1 : 0);
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

const cleanPath = (path: string | undefined): string =>
  printable(unquoted(path ?? ""))
    .replaceAll("\t", " ")
    .replaceAll("\n", " ")
    .trim();

/** `rename from x` and `copy from x`, which the library does not read. */
function previousName(section: string): string | null {
  const found = /^(?:rename|copy) from (.{1,1000})$/m.exec(section);
  return found?.[1] ? cleanPath(found[1].replace(/^"|"$/g, "")) : null;
}

function nextName(section: string): string | null {
  const found = /^(?:rename|copy) to (.{1,1000})$/m.exec(section);
  return found?.[1] ? cleanPath(found[1].replace(/^"|"$/g, "")) : null;
}

function rowsOf(chunk: parseDiff.Chunk): Row[] {
  return chunk.changes.flatMap((change): Row[] => {
    // The library repeats the row before with this text.
    if (change.content.startsWith("\\")) return [];
    const text = change.content.slice(1);
    if (change.type === "del") return [{ kind: "removed", line: null, text }];
    const line = change.type === "add" ? change.ln : change.ln2;
    return Number.isSafeInteger(line) && line > 0 ? [{ kind: change.type === "add" ? "added" : "context", line, text }] : [];
  });
}

function toFile(parsed: parseDiff.File, section: string): ChangedFile | null {
  const from = cleanPath(parsed.from);
  const to = cleanPath(parsed.to);
  const hunks: Hunk[] = parsed.chunks.map((chunk) => ({ rows: rowsOf(chunk) }));
  const isDeleted = parsed.deleted === true || to === "/dev/null";
  const path = nextName(section) ?? (isDeleted ? from : to || from);
  if (!path || path === "/dev/null") return null;
  const isBinary = hunks.length === 0 && /^(?:Binary files .{1,2100} differ|GIT binary patch)$/m.test(section);
  const isNew = parsed.new === true || from === "/dev/null";
  const previous = previousName(section);
  const isRenamed = previous !== null && previous !== path;
  const count = (kind: Row["kind"]) => hunks.reduce((sum, hunk) => sum + hunk.rows.filter((row) => row.kind === kind).length, 0);
  return {
    path,
    previousPath: isRenamed ? previous : null,
    status: isBinary ? "binary" : isDeleted ? "deleted" : isNew ? "added" : isRenamed ? "renamed" : "modified",
    language: languageOf(path),
    isTest: isTestPath(path),
    isGenerated: isGeneratedPath(path),
    isWhole: isNew && hunks.length === 1,
    hunks,
    added: count("added"),
    removed: count("removed"),
  };
}

/** Lines of a hunk begin with a space, `+`, `-` or `\`, so a line that begins with `diff ` always opens a new file, whatever a header promised. */
function sectionsOf(text: string): { sections: string[]; cut: number } {
  const sections: string[][] = [[]];
  let cut = 0;
  for (const raw of text.split("\n")) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    const isHeader = line.startsWith("diff ");
    if (isHeader) sections.push([]);
    const max = isHeader ? MAX_HEADER : MAX_LINE;
    if (line.length > max) cut += 1;
    sections.at(-1)?.push(line.length > max ? line.slice(0, max) : line);
  }
  return { sections: sections.map((lines) => lines.join("\n")).filter((section) => section.trim() !== ""), cut };
}

/** Rows that a header did not announce are not read by the library; a reader must know that code went unseen. */
function unreadRows(section: string, files: ChangedFile[]): number {
  let present = 0;
  for (const line of section.split("\n")) if (line.startsWith("+") && !line.startsWith("+++ ")) present += 1;
  // An added line may itself begin with `++ `, hence only a shortage counts.
  return Math.max(0, present - files.reduce((sum, file) => sum + file.added, 0));
}

export function parseUnifiedDiff(text: string): ParsedDiff {
  const { sections, cut } = sectionsOf(text);
  const notes: string[] = [];
  const files: ChangedFile[] = [];
  const inconsistent: string[] = [];
  for (const section of sections.slice(0, MAX_FILES)) {
    if (/^diff --(?:cc|combined) /.test(section)) {
      notes.push(`The combined diff of a merge (${cleanPath(section.split("\n", 1)[0]).slice(0, 200)}) was not read; send the diff against one parent.`);
      continue;
    }
    const found = parseDiff(section).flatMap((file) => toFile(file, section) ?? []);
    const unread = /^GIT binary patch$/m.test(section) || found.length === 0 ? 0 : unreadRows(section, found);
    if (unread > 0) inconsistent.push(`${found[0]?.path} (${unread})`);
    files.push(...found);
  }
  if (sections.length > MAX_FILES) notes.push(`Only the first ${MAX_FILES} files of the diff were read.`);
  if (cut > 0) notes.push(`${cut} lines were longer than ${MAX_LINE} characters and were cut there.`);
  if (inconsistent.length > 0)
    notes.push(`Added lines that no hunk header announces were not read: ${inconsistent.slice(0, 10).join(", ")}. The diff is damaged; make it again with git diff.`);
  return { files, notes };
}
