/** SARIF 2.1.0, the form that code-scanning services and editors read. */
import { createHash } from "node:crypto";
import type { RankedFinding, Severity } from "../change.ts";

const LEVEL: Record<Severity, "error" | "warning" | "note"> = { critical: "error", high: "error", medium: "warning", low: "note" };
/** GitHub sorts by this number: above 9 is critical, above 7 high, above 4 medium. */
const SECURITY_SEVERITY: Record<Severity, string> = { critical: "9.5", high: "8.0", medium: "5.5", low: "2.0" };

function ruleOf(finding: RankedFinding) {
  const tags = [finding.branch, ...(finding.cwe ? [`external/cwe/${finding.cwe.toLowerCase()}`] : [])];
  return {
    id: finding.rule,
    shortDescription: { text: finding.rule },
    help: { text: finding.suggestion || finding.message },
    defaultConfiguration: { level: LEVEL[finding.severity] },
    properties: {
      tags,
      ...(finding.branch === "security" ? { "security-severity": SECURITY_SEVERITY[finding.severity] } : {}),
      ...(finding.owasp ? { owasp: finding.owasp } : {}),
    },
  };
}

const uriOf = (path: string): string => path.split("/").map(encodeURIComponent).join("/");

export function toSarif(findings: readonly RankedFinding[], tool: { version: string }): string {
  const rules = new Map<string, { index: number; rule: ReturnType<typeof ruleOf> }>();
  const results = findings.map((finding) => {
    const known = rules.get(finding.rule) ?? { index: rules.size, rule: ruleOf(finding) };
    rules.set(finding.rule, known);
    return {
      ruleId: finding.rule,
      ruleIndex: known.index,
      level: LEVEL[finding.severity],
      message: { text: finding.suggestion ? `${finding.message}\n${finding.suggestion}` : finding.message },
      locations: [{ physicalLocation: { artifactLocation: { uri: uriOf(finding.path), uriBaseId: "%SRCROOT%" }, region: { startLine: finding.line } } }],
      partialFingerprints: { "aauFinding/v1": createHash("sha256").update(`${finding.path}\u0000${finding.rule}\u0000${finding.line}`).digest("hex") },
      rank: Math.min(100, finding.score),
      properties: { severity: finding.severity, confidence: finding.confidence },
    };
  });
  const log = {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [
      { tool: { driver: { name: "aau-code-review", semanticVersion: tool.version, rules: [...rules.values()].map(({ rule }) => rule) } }, columnKind: "utf16CodeUnits", results },
    ],
  };
  return `${JSON.stringify(log, null, 2)}\n`;
}
