/** The review for people: a short text for a terminal, and the whole report as a file. Every word from outside was made printable before. */
import { type RankedFinding, SEVERITIES } from "../change.ts";
import { code } from "../printable.ts";
import { inWords, plural, type Totals } from "./totals.ts";

export interface Review {
  source: string;
  files: number;
  lines: number;
  totals: Totals;
  findings: readonly RankedFinding[];
  summary: string;
  hasModel: boolean;
}

const SHOWN = 10;

const label = (finding: RankedFinding): string => [finding.rule, ...(finding.cwe ? [finding.cwe] : [])].join(", ");

function heading({ files, lines, totals, findings }: Review): string {
  const found = findings.length === 0 ? "no findings" : inWords(totals);
  return `## Code review: ${found}\n\n${plural(files, "file")}, ${plural(lines, "changed line")}.`;
}

/** At most some forty lines, whatever the size of the change. */
export function shortText(review: Review): string {
  const shown = review.findings.slice(0, SHOWN);
  const list = shown.map(
    (finding, index) =>
      `${index + 1}. **${finding.severity.toUpperCase()}** ${code(`${finding.path}:${finding.line}`)} (${label(finding)})\n   ${finding.message}\n   Fix: ${finding.suggestion}`,
  );
  const more = review.findings.length - shown.length;
  return [`${heading(review)} ${review.summary}`, list.join("\n"), more > 0 ? `${plural(more, "more finding")} in review.md and review.sarif.json.` : ""]
    .filter((part) => part !== "")
    .join("\n\n");
}

export function inlineComment(finding: RankedFinding): string {
  return `**${finding.severity}** (${label(finding)}): ${finding.message}${finding.suggestion ? `\n\nSuggestion: ${finding.suggestion}` : ""}`;
}

/** The whole report; `limit` findings are written out. */
export function fullReport(review: Review, limit: number): string {
  const sections = SEVERITIES.flatMap((severity) => {
    const findings = review.findings.slice(0, limit).filter((finding) => finding.severity === severity);
    if (findings.length === 0) return [];
    const items = findings.map((finding) => {
      const facts = [
        label(finding),
        finding.owasp,
        finding.branch,
        `confidence ${finding.confidence.toFixed(2)}`,
        finding.also.length > 0 ? `also ${finding.also.join(", ")}` : null,
      ].filter((fact) => fact !== null);
      return `### ${code(`${finding.path}:${finding.line}`)}\n\n${finding.message}\n\n*Suggestion:* ${finding.suggestion}\n\n<sub>${facts.join(" · ")}</sub>`;
    });
    return [`## ${severity[0]?.toUpperCase()}${severity.slice(1)} (${review.totals[severity]})`, ...items];
  });
  const how = review.hasModel
    ? "Static rules and a model read this change."
    : "Static rules read this change; no model was at hand, so bugs that need understanding were not looked for.";
  const left = review.findings.length - limit;
  return `${[`# Code review of ${code(review.source)}`, `${plural(review.files, "file")}, ${plural(review.lines, "changed line")}. ${review.findings.length === 0 ? "No findings." : `Findings: ${inWords(review.totals)}.`}`, review.summary, ...sections, left > 0 ? `${plural(left, "more finding")} were left out.` : "", `---\n\n${how}`].filter((part) => part !== "").join("\n\n")}\n`;
}
