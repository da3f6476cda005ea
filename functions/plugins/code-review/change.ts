/** The vocabulary of a review: what was changed, and what was found in it. */

/** A row of a hunk. `line` is the number on the new side; a removed row has none. */
export interface Row {
  readonly kind: "added" | "context" | "removed";
  readonly line: number | null;
  readonly text: string;
}

export interface Hunk {
  readonly rows: readonly Row[];
}

/** A line of the new side, the only side that findings point at. */
export interface Line {
  readonly number: number;
  readonly text: string;
  readonly isChanged: boolean;
}

export interface ChangedFile {
  readonly path: string;
  readonly previousPath: string | null;
  readonly status: "added" | "modified" | "deleted" | "renamed" | "binary";
  readonly language: string;
  readonly isTest: boolean;
  /** Lock files, minified code, vendored code: searched for secrets, otherwise left alone. */
  readonly isGenerated: boolean;
  /** The rows hold the whole new file, so rules that need to see all of it make sense. */
  readonly isWhole: boolean;
  readonly hunks: readonly Hunk[];
  readonly added: number;
  readonly removed: number;
}

/** Where a secret stood. Its text is masked in the rows before anything else sees them. */
export interface SecretSpot {
  readonly line: number;
  readonly rule: string;
  /** What kind of secret, for the reader: `PostgreSQL connection string`. */
  readonly what: string;
  readonly confidence: number;
}

/** Code that parses, made of consecutive new-side lines of one hunk between a made-up head and tail. */
export interface Fragment {
  readonly head: string;
  readonly lines: readonly Line[];
  readonly tail: string;
}

/** A file made ready for the branches. */
export interface ReadyFile extends ChangedFile {
  readonly secrets: readonly SecretSpot[];
  readonly fragments: readonly Fragment[];
}

export interface Batch {
  readonly name: string;
  readonly files: readonly ReadyFile[];
  /** False when the token budget does not reach this far; then only the static rules look at the batch. */
  readonly isForModel: boolean;
}

export const SEVERITIES = ["critical", "high", "medium", "low"] as const;
export type Severity = (typeof SEVERITIES)[number];
export const BRANCHES = ["security", "style", "logic", "performance"] as const;
export type Branch = (typeof BRANCHES)[number];

export interface Finding {
  readonly branch: Branch;
  /** Stable and lower case, such as `sql-injection`; a model's finding is `model/<branch>`. */
  readonly rule: string;
  readonly severity: Severity;
  /** How likely it is that a person would agree, 0 to 1. */
  readonly confidence: number;
  readonly path: string;
  readonly line: number;
  readonly message: string;
  readonly suggestion: string;
  readonly cwe: string | null;
  readonly owasp: string | null;
}

export interface RankedFinding extends Finding {
  readonly score: number;
  /** Other rules that said the same of the same line. */
  readonly also: readonly string[];
}

export function newSide(hunk: Hunk): Line[] {
  return hunk.rows.flatMap((row) => (row.line === null ? [] : [{ number: row.line, text: row.text, isChanged: row.kind === "added" }]));
}

export function addedLines(file: ChangedFile): Line[] {
  return file.hunks.flatMap(newSide).filter((line) => line.isChanged);
}
