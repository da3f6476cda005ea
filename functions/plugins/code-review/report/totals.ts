/** The figures of a review. */
import { type ChangedFile, type RankedFinding, SEVERITIES, type Severity } from "../change.ts";

export type Totals = Record<Severity, number>;

export function totalsOf(findings: readonly RankedFinding[]): Totals {
  const totals: Totals = { critical: 0, high: 0, medium: 0, low: 0 };
  for (const finding of findings) totals[finding.severity] += 1;
  return totals;
}

/** "2 critical, 1 low" */
export function inWords(totals: Totals): string {
  return SEVERITIES.filter((severity) => totals[severity] > 0)
    .map((severity) => `${totals[severity]} ${severity}`)
    .join(", ");
}

export const plural = (count: number, one: string): string => `${count} ${one}${count === 1 ? "" : "s"}`;

/** Binary files and pure renames have no lines to read. */
export function reviewedFiles(files: readonly ChangedFile[]): number {
  return files.filter((file) => file.added + file.removed > 0 && file.status !== "deleted").length;
}

export const changedLines = (files: readonly ChangedFile[]): number => files.reduce((sum, file) => sum + file.added + file.removed, 0);
