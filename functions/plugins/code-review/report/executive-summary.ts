/** Two or three sentences for someone who decides whether to merge, made from the figures alone. */
import type { RankedFinding } from "../change.ts";
import { code } from "../printable.ts";
import { plural, totalsOf } from "./totals.ts";

const TOPICS: Record<string, string> = {
  "CWE-798": "secrets in the code",
  "CWE-89": "SQL injection",
  "CWE-78": "command injection",
  "CWE-79": "cross-site scripting",
  "CWE-95": "running text as code",
  "CWE-94": "running text as code",
  "CWE-22": "path traversal",
  "CWE-295": "TLS without verification",
  "CWE-502": "unsafe deserialisation",
  "CWE-918": "server-side request forgery",
  "CWE-338": "predictable random values",
  "CWE-829": "code from untrusted places",
  "CWE-1050": "work repeated in loops",
  "CWE-347": "unverified tokens",
  "CWE-327": "weak cryptography",
  "CWE-328": "weak cryptography",
  "CWE-1333": "slow regular expressions",
  "CWE-601": "open redirects",
};

function topicsOf(findings: readonly RankedFinding[]): string {
  const topics = new Set(findings.flatMap((finding) => (finding.cwe !== null && Object.hasOwn(TOPICS, finding.cwe) ? [TOPICS[finding.cwe] ?? ""] : [])));
  const [first, ...rest] = [...topics].slice(0, 3);
  if (!first) return "";
  const last = rest.pop();
  return ` It is about ${[first, ...rest].join(", ")}${last ? ` and ${last}` : ""}.`;
}

function heaviestFile(findings: readonly RankedFinding[]): string {
  const counts = new Map<string, number>();
  for (const { path } of findings) counts.set(path, (counts.get(path) ?? 0) + 1);
  const [path, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? ["", 0];
  return counts.size > 1 && count > 2 ? ` Most of it is in ${code(path)} (${plural(count, "finding")}).` : "";
}

export function executiveSummary(findings: readonly RankedFinding[], about: { hasModel: boolean }): string {
  if (findings.length === 0)
    return about.hasModel ? "Nothing stands in the way of merging." : "The static rules found nothing. They do not understand what the code is for; a person should still read it.";
  const { critical, high, medium } = totalsOf(findings);
  const grave = findings.filter((finding) => finding.severity === "critical" || finding.severity === "high");
  const advice =
    critical > 0
      ? `Do not merge yet: ${plural(critical, "critical problem")} must be fixed first.`
      : high > 0
        ? `Fix ${high === 1 ? "the serious problem" : `the ${high} serious problems`} before merging.`
        : medium > 0
          ? "Nothing grave; worth another look before merging."
          : "Only small things; fine to merge.";
  return advice + topicsOf(grave) + heaviestFile(findings);
}
