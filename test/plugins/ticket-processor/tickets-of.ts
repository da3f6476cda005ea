/** Runs the plugin in its harness, and reads what it gives back. */
import type { OutputEnvelope } from "@aau/sdk";
import { type HarnessOptions, PluginHarness, type RunOptions } from "@aau/sdk/testing";
import * as v from "valibot";
import plugin from "../../../functions/plugins/ticket-processor/ticket-processor.ts";

const Text = v.nullable(v.string());
export const Row = v.object({
  outcome: v.string(),
  id: Text,
  url: Text,
  title: v.string(),
  type: Text,
  priority: Text,
  status: Text,
  assignee: Text,
  team: Text,
  component: Text,
  labels: v.array(v.string()),
  sla_due_at: Text,
  sla_breached: v.boolean(),
  created_at: Text,
  reference: Text,
  note: Text,
});
export const Data = v.object({ action: v.string(), summary: v.record(v.string(), v.number()), total: v.number(), tickets: v.array(Row) });

export function newHarness(options: HarnessOptions = {}): PluginHarness {
  return new PluginHarness(plugin, options);
}

export function dataOf(output: OutputEnvelope): v.InferOutput<typeof Data> {
  return v.parse(Data, output.data, { message: output.error ?? undefined });
}

export const textFile = (name: string, content: string, media_type = "text/plain"): RunOptions["attachments"] => [{ name, media_type, content }];

export interface Finding {
  path: string;
  line: number;
  severity: string;
  rule: string;
  message: string;
  suggestion?: string;
}

/** What a step of the plugin code-review gives back, as the next step gets it. */
export function reviewFile(findings: readonly Finding[], name = "review.json"): NonNullable<RunOptions["attachments"]> {
  const comments = findings.map(({ message, suggestion = "Fix it.", ...finding }) => ({
    ...finding,
    body: `**${finding.severity}** (${finding.rule}): ${message}\n\nSuggestion: ${suggestion}`,
    suggestion,
  }));
  const data = { summary: { critical: 0, high: 0, medium: 0, low: 0 }, comments, files_reviewed: 1, lines_changed: findings.length };
  const artifacts = [{ artifact_id: "art_1", name: "review.md", media_type: "text/markdown", size_bytes: 1, sha256: "" }];
  // In the order in which the platform writes it.
  const content = JSON.stringify({ artifacts, confidence: 0.6, data, next_steps: ["Set ANTHROPIC_API_KEY."], result: "## Code review\n\n1. One", status: "partial" });
  return [{ name, media_type: "application/json", content, origin: { step: name.replace(/\.json$/, ""), plugin: "code-review" } }];
}

export const finding = (over: Partial<Finding> = {}): Finding => ({
  path: "src/routes/files.ts",
  line: 12,
  severity: "high",
  rule: "sql-injection",
  message: "A value goes into the text of an SQL query.",
  ...over,
});
