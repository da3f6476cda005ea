/**
 * Finds secrets and masks them in place, before any other part of the review (a model least of all) sees the text. So nothing
 * later can print one: the text it would have to come from is gone. Load it with `await import()`.
 */
import { lintSource } from "@secretlint/core";
import { rules } from "@secretlint/secretlint-rule-preset-recommend";
import type { ChangedFile, Hunk, Row, SecretSpot } from "../change.ts";
import { oneLine } from "../printable.ts";

// Without the rule that lets a comment in the file switch the others off: the author of a diff does not judge it.
const RULES = rules.filter((rule) => !rule.meta.id.endsWith("filter-comments")).map((rule) => ({ id: rule.meta.id, rule }));

/** The text is searched in pieces, so that one long file does not hold the process. */
const PIECE_LINES = 2000;
const OVERLAP_LINES = 60;

interface Hit {
  from: number;
  to: number;
  rule: string;
  what: string;
  confidence: number;
}

/** Values that only stand for a secret. */
const PLACEHOLDER =
  /^(?:x+|\*+|\.+|<.{0,80}>|\$\{.{0,200}|%.{0,80}|\{\{.{0,200}|process\.env.{0,80}|(?:your|my|the|some|a)[-_ ].{0,80}|change[-_]?me.{0,40}|placeholder|password|passwd|secret|token|test|example.{0,40}|dummy.{0,40}|none|null|undefined|true|false)$/i;
/**
 * A literal given to a name that says what it is. Ours, because secretlint's rules know the shapes of providers' keys and have none for
 * a plain password. Every repetition is bounded, so the time is linear.
 */
const ASSIGNED =
  /(?:passw(?:or)?d|passwd|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|private[_-]?key|client[_-]?secret)["']?\s{0,4}(?::|=|:=|=>)\s{0,4}(["'`])([^"'`\s]{8,120})\1/gi;

function assignedSecrets(text: string): Hit[] {
  return Array.from(text.matchAll(ASSIGNED)).flatMap((match) => {
    const value = match[2] ?? "";
    if (PLACEHOLDER.test(value) || /^[a-z]+(?:[._-][a-z]+)*$/i.test(value)) return [];
    const from = match.index + match[0].length - 1 - value.length;
    return [{ from, to: from + value.length, rule: "hardcoded-credential", what: "literal password or key", confidence: 0.7 }];
  });
}

async function search(text: string, path: string): Promise<Hit[]> {
  const extension = path.includes(".") ? path.slice(path.lastIndexOf(".")) : "";
  const { messages } = await lintSource({
    source: { filePath: `/${path}`, content: text, contentType: "text", ext: extension },
    options: { config: { rules: RULES }, maskSecrets: true, noPhysicFilePath: true },
  });
  const known = messages.map((message): Hit => {
    // "found private key: ****": the words before the colon tell the kind and nothing more.
    const what = oneLine(
      message.message
        .split(":", 1)[0]
        ?.replace(/^found /i, "")
        .replace(/\(.*/, "") ?? "",
      60,
    );
    // Some ranges take in the quote and the semicolon behind, without which the line would no longer parse.
    const found = text.slice(message.range[0], message.range[1]);
    const to = message.range[1] - (found.length - found.replace(/["'`;,)\]}\s]{1,8}$/, "").length);
    return { from: message.range[0], to, rule: message.ruleId.replace(/^.*secretlint-rule-/, "secret-"), what: what || "secret", confidence: 0.95 };
  });
  return [...known, ...assignedSecrets(text)];
}

function masked(text: string, hits: readonly Hit[]): string {
  const characters = Array.from({ length: text.length }, (_, at) => text.charAt(at));
  for (const hit of hits) for (let at = hit.from; at < hit.to; at += 1) if (characters[at] !== "\n") characters[at] = "*";
  return characters.join("");
}

/** Masks the given rows, which are consecutive lines of one side. Returns the rows and the line of each hit. */
async function maskRows(rows: readonly Row[], path: string): Promise<{ rows: Row[]; spots: SecretSpot[] }> {
  const texts = rows.map((row) => row.text);
  const spots: SecretSpot[] = [];
  for (let start = 0; start < texts.length; start += PIECE_LINES - OVERLAP_LINES) {
    const piece = texts.slice(start, start + PIECE_LINES);
    const text = piece.join("\n");
    const hits = await search(text, path);
    if (hits.length > 0) {
      for (const [index, line] of masked(text, hits).split("\n").entries()) texts[start + index] = line;
      for (const hit of hits) {
        const first = text.slice(0, hit.from).split("\n").length - 1;
        const last = text.slice(0, hit.to).split("\n").length - 1;
        const at = rows.slice(start + first, start + last + 1).find((row) => row.kind === "added");
        if (at?.line) spots.push({ line: at.line, rule: hit.rule, what: hit.what, confidence: hit.confidence });
      }
    }
    if (start + PIECE_LINES >= rows.length) break;
  }
  return { rows: rows.map((row, index) => ({ ...row, text: texts[index] ?? "" })), spots };
}

async function maskHunk(hunk: Hunk, path: string): Promise<{ hunk: Hunk; spots: SecretSpot[] }> {
  const newRows = await maskRows(
    hunk.rows.filter((row) => row.kind !== "removed"),
    path,
  );
  const oldRows = await maskRows(
    hunk.rows.filter((row) => row.kind !== "added"),
    path,
  );
  const after = newRows.rows.values();
  const before = oldRows.rows.values();
  const rows = hunk.rows.map((row): Row => {
    if (row.kind === "removed") return before.next().value ?? row;
    const fromOld = row.kind === "context" ? before.next().value : undefined;
    const fromNew = after.next().value ?? row;
    // A context line belongs to both sides; a secret may be complete on one of them only.
    return fromOld && fromOld.text !== row.text ? fromOld : fromNew;
  });
  return { hunk: { rows }, spots: newRows.spots };
}

/** @returns the file with its secrets masked on both sides, and the secrets that the change adds. */
export async function maskSecrets<File extends ChangedFile>(file: File, breathe: () => Promise<void>): Promise<{ file: File; secrets: SecretSpot[] }> {
  const hunks: Hunk[] = [];
  const secrets: SecretSpot[] = [];
  for (const hunk of file.hunks) {
    await breathe();
    const { hunk: clean, spots } = await maskHunk(hunk, file.path);
    hunks.push(clean);
    for (const spot of spots) secrets.push(spot);
  }
  const seen = new Set<string>();
  // A named kind of secret says more than "literal password" about the same line.
  const ordered = secrets.toSorted((a, b) => b.confidence - a.confidence);
  return { file: { ...file, hunks }, secrets: ordered.filter((spot) => !seen.has(String(spot.line)) && seen.add(String(spot.line))) };
}
