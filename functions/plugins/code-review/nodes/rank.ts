import { type Finding, type RankedFinding, SEVERITIES, type Severity } from "../change.ts";
import { isTestPath } from "../diff/file-kind.ts";
import type { ReviewPatch, ReviewState } from "../state.ts";

const WEIGHT: Record<Severity, number> = { critical: 100, high: 50, medium: 20, low: 5 };
const BRANCH_WEIGHT: Record<Finding["branch"], number> = { security: 1, logic: 0.95, performance: 0.8, style: 0.6 };

/** One step less grave in tests, which do not run in production; a secret is as public there as anywhere. */
function severityOf(finding: Finding): Severity {
  if (!isTestPath(finding.path) || finding.cwe === "CWE-798") return finding.severity;
  return SEVERITIES[Math.min(SEVERITIES.indexOf(finding.severity) + 1, SEVERITIES.length - 1)] ?? "low";
}

export function scoreOf(finding: Finding): number {
  return Math.round(WEIGHT[finding.severity] * finding.confidence * BRANCH_WEIGHT[finding.branch] * 100) / 100;
}

/** Two rules that name the same weakness on the same line say one thing; ones without a CWE are the same by their names. */
const sameness = (finding: Finding): string => `${finding.line}\u0000${finding.cwe ?? finding.rule}\u0000${finding.path}`;

function compare(a: RankedFinding, b: RankedFinding): number {
  return (
    SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) ||
    b.score - a.score ||
    (a.path < b.path ? -1 : a.path > b.path ? 1 : 0) ||
    a.line - b.line ||
    (a.rule < b.rule ? -1 : a.rule > b.rule ? 1 : 0)
  );
}

/** Duplicates become one, the surer one; then critical before high before medium before low, and within these the score. */
export function rankFindings(findings: readonly Finding[]): RankedFinding[] {
  const best = new Map<string, RankedFinding>();
  for (const raw of findings) {
    const finding = { ...raw, severity: severityOf(raw) };
    const next: RankedFinding = { ...finding, score: scoreOf(finding), also: [] };
    const before = best.get(sameness(next));
    if (!before) {
      best.set(sameness(next), next);
      continue;
    }
    const [winner, loser] = compare(before, next) <= 0 ? [before, next] : [next, before];
    const also = new Set([...before.also, ...next.also, loser.rule]);
    also.delete(winner.rule);
    best.set(sameness(next), { ...winner, also: [...also].sort() });
  }
  return [...best.values()].sort(compare);
}

export function rank(state: ReviewState): ReviewPatch {
  return { ranked: rankFindings(state.findings) };
}
