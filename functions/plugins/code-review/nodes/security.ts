import type { NodeContext } from "@aau/sdk";
import { reviewWithModel } from "../ask-model.ts";
import { breather } from "../breathe.ts";
import type { Finding, ReadyFile } from "../change.ts";
import { findDangerousLines } from "../rules/dangerous-lines.ts";
import { findDependencyChanges } from "../rules/dependency-changes.ts";
import { rulesWithQueries, SECURITY_QUERIES, SECURITY_RULES } from "../rules/script-weaknesses.ts";
import { findingOf } from "../rules/weakness.ts";
import type { BranchInput, ReviewPatch } from "../state.ts";

const PROMPT = `Look for security problems (OWASP Top 10): injection of every kind, missing or wrong authorisation, secrets in code or logs, unsafe deserialisation, server-side request forgery, path traversal, weak cryptography, trust in data from outside. Name the CWE.`;

function secretFindings(file: ReadyFile): Finding[] {
  return file.secrets.map((secret) =>
    findingOf(
      "security",
      secret.rule,
      {
        severity: secret.rule === "hardcoded-credential" ? "high" : "critical",
        confidence: secret.confidence,
        cwe: "CWE-798",
        message: `A secret stands in the change: ${secret.what}. It stays in the history even when the line goes.`,
        suggestion: "Revoke it now, then read it from the environment or a secret store.",
      },
      { path: file.path, line: secret.line },
    ),
  );
}

async function scriptFindings(files: readonly ReadyFile[], signal: AbortSignal): Promise<{ findings: Finding[]; unseen: string[] }> {
  const scripts = files.filter((file) => file.fragments.length > 0);
  if (scripts.length === 0) return { findings: [], unseen: [] };
  const { lintScripts } = await import("../rules/lint-scripts.ts");
  const { messages, unseen } = await lintScripts(scripts, rulesWithQueries(Object.keys(SECURITY_RULES), SECURITY_QUERIES), signal);
  const findings = messages.flatMap(({ path, rule, text, line }) => {
    const name = rule === "no-restricted-syntax" ? text : rule;
    const weakness = rule === "no-restricted-syntax" ? SECURITY_QUERIES[text]?.weakness : SECURITY_RULES[rule];
    return weakness ? [findingOf("security", name, weakness, { path, line })] : [];
  });
  return { findings, unseen };
}

function lineFindings(file: ReadyFile): Finding[] {
  if (file.isGenerated) return secretFindings(file);
  const lines = [...findDangerousLines(file), ...findDependencyChanges(file)];
  return [...secretFindings(file), ...lines.map(({ rule, line, weakness }) => findingOf("security", rule, weakness, { path: file.path, line }))];
}

/** OWASP rules on changed lines, secrets, dependencies, and the model. */
export async function security({ batch }: BranchInput, ctx: NodeContext): Promise<ReviewPatch> {
  const byModel = reviewWithModel(ctx, batch, "security", PROMPT);
  // A rejection while the static rules still run is for the await below, not for the process.
  byModel.catch(() => undefined);
  const breathe = breather(ctx.signal);
  const found: Finding[][] = [];
  for (const file of batch.files) {
    await breathe();
    found.push(lineFindings(file));
  }
  const scripts = await scriptFindings(batch.files, ctx.signal);
  const { findings, isIncomplete } = await byModel;
  return { found: [...found.flat(), ...scripts.findings, ...findings], unseen: scripts.unseen, incomplete: isIncomplete ? ["security"] : [] };
}
