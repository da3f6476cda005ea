/** Runs the plugin in its harness over what a test gives it. */
import type { OutputEnvelope } from "@aau/sdk";
import { type HarnessOptions, PluginHarness, type RunOptions } from "@aau/sdk/testing";
import * as v from "valibot";
import plugin from "../../../functions/plugins/code-review/code-review.ts";

export const Comment = v.object({ path: v.string(), line: v.number(), severity: v.string(), rule: v.string(), body: v.string(), suggestion: v.string() });
export const Data = v.object({
  summary: v.object({ critical: v.number(), high: v.number(), medium: v.number(), low: v.number() }),
  comments: v.array(Comment),
  files_reviewed: v.number(),
  lines_changed: v.number(),
});

export function newHarness(options: HarnessOptions = {}): PluginHarness {
  return new PluginHarness(plugin, options);
}

/** Whole files, so that every line counts as changed. */
export function files(contents: Record<string, string>): RunOptions["attachments"] {
  return Object.entries(contents).map(([name, content]) => ({ name, media_type: "text/plain", content }));
}

export function diffAttachment(content: string): RunOptions["attachments"] {
  return [{ name: "change.diff", media_type: "text/x-diff", content }];
}

export function dataOf(output: OutputEnvelope): v.InferOutput<typeof Data> {
  return v.parse(Data, output.data);
}

/** `rule@path:line`, sorted. */
export function found(output: OutputEnvelope): string[] {
  return dataOf(output)
    .comments.map(({ rule, path, line }) => `${rule}@${path}:${line}`)
    .sort();
}

/** A diff of one file with one hunk, from lines that begin with a space, + or -. */
export function diffOf(path: string, start: number, lines: readonly string[]): string {
  const before = lines.filter((line) => !line.startsWith("+")).length;
  const after = lines.filter((line) => !line.startsWith("-")).length;
  return `diff --git a/${path} b/${path}\nindex 1111111..2222222 100644\n--- a/${path}\n+++ b/${path}\n@@ -${start},${before} +${start},${after} @@\n${lines.join("\n")}\n`;
}
