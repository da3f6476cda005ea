/** What is known of each rule apart from how it is recognised: how grave it is, its class in CWE and OWASP, and the way out. */
import type { Branch, Finding, Severity } from "../change.ts";

export interface Weakness {
  severity: Severity;
  confidence: number;
  message: string;
  suggestion: string;
  cwe?: string;
}

const INJECTION = "A03:2021 Injection";
const CRYPTO = "A02:2021 Cryptographic Failures";
const ACCESS = "A01:2021 Broken Access Control";
const CONFIG = "A05:2021 Security Misconfiguration";
const OWASP_OF: Record<string, string> = {
  "CWE-22": ACCESS,
  "CWE-601": ACCESS,
  "CWE-346": ACCESS,
  "CWE-352": ACCESS,
  "CWE-78": INJECTION,
  "CWE-79": INJECTION,
  "CWE-89": INJECTION,
  "CWE-94": INJECTION,
  "CWE-95": INJECTION,
  "CWE-1321": INJECTION,
  "CWE-295": CRYPTO,
  "CWE-327": CRYPTO,
  "CWE-328": CRYPTO,
  "CWE-338": CRYPTO,
  "CWE-208": CRYPTO,
  "CWE-611": CONFIG,
  "CWE-614": CONFIG,
  "CWE-1004": CONFIG,
  "CWE-489": CONFIG,
  "CWE-732": CONFIG,
  "CWE-798": "A07:2021 Identification and Authentication Failures",
  "CWE-347": "A07:2021 Identification and Authentication Failures",
  "CWE-502": "A08:2021 Software and Data Integrity Failures",
  "CWE-829": "A08:2021 Software and Data Integrity Failures",
  "CWE-506": "A08:2021 Software and Data Integrity Failures",
  "CWE-1104": "A06:2021 Vulnerable and Outdated Components",
  "CWE-918": "A10:2021 Server-Side Request Forgery",
  "CWE-1333": "A04:2021 Insecure Design",
};

export const owaspOf = (cwe: string | null): string | null => (cwe !== null && Object.hasOwn(OWASP_OF, cwe) ? (OWASP_OF[cwe] ?? null) : null);

export function findingOf(branch: Branch, rule: string, weakness: Weakness, place: { path: string; line: number }): Finding {
  const cwe = weakness.cwe ?? null;
  const { severity, confidence, message, suggestion } = weakness;
  return { branch, rule, severity, confidence, message, suggestion, cwe, owasp: owaspOf(cwe), ...place };
}
