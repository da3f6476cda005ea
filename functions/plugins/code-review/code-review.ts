/** Code Review: reads a change as a careful colleague does, and says what to fix before merging. */
import { definePlugin, node, type PluginResult } from "@aau/sdk";
import { END, START, StateGraph } from "@langchain/langgraph";
import { fetchDiff } from "./nodes/fetch-diff.ts";
import { logic } from "./nodes/logic.ts";
import { mergeResults } from "./nodes/merge-results.ts";
import { performance } from "./nodes/performance.ts";
import { rank } from "./nodes/rank.ts";
import { security } from "./nodes/security.ts";
import { splitFiles, toBranches } from "./nodes/split-files.ts";
import { style } from "./nodes/style.ts";
import { reviewOf, summarise } from "./nodes/summarise.ts";
import { inlineComment, shortText } from "./report/markdown.ts";
import { Settings } from "./settings.ts";
import { ReviewState } from "./state.ts";
import { VERSION } from "./version.ts";

/** In the answer itself; the artifacts hold more. */
const MAX_COMMENTS = 200;

const NO_MODEL =
  "Set ANTHROPIC_API_KEY to add the model's review: logic and reasoning (bugs, edge cases, race conditions), deeper security and performance checks, and a written summary. This review used static rules only.";
const INCOMPLETE = "Run the task again: the model did not finish its part of this review.";

function finish(state: typeof ReviewState.State): PluginResult {
  const { source: _source, ...review } = reviewOf(state);
  const isComplete = state.hasModel && state.incomplete.length === 0;
  return {
    status: isComplete ? "success" : "partial",
    result: shortText(reviewOf(state)),
    data: {
      summary: review.totals,
      comments: review.findings.slice(0, MAX_COMMENTS).map((finding) => ({
        path: finding.path,
        line: finding.line,
        severity: finding.severity,
        rule: finding.rule,
        body: inlineComment(finding),
        suggestion: finding.suggestion,
      })),
      files_reviewed: review.files,
      lines_changed: review.lines,
    },
    confidence: state.confidence,
    nextSteps: isComplete ? [] : [state.hasModel ? INCOMPLETE : NO_MODEL],
  };
}

export default definePlugin({
  name: "code-review",
  version: VERSION,
  description: "Reviews a diff, source files or a GitHub pull request for security, bugs, style and performance, and ranks what it finds.",
  capabilities: [
    "Review a pull request, a diff or a patch and comment on the changed lines before the code is merged",
    "Scan a code change for security vulnerabilities such as injection, leaked secrets, hard-coded credentials and unsafe dependencies",
    "Check source code against our coding standards, style rules, naming and lint conventions",
    "Find bugs, edge cases, race conditions and missing error handling in new or modified code",
    "Suggest refactoring and performance improvements for slow, complex or hard to maintain functions",
  ],
  category: "engineering",
  inputSchema: {
    type: "object",
    properties: {
      attachments: {
        type: "array",
        description: "A unified diff (text/x-diff, *.diff, *.patch), source files, or the URL of a GitHub pull request. The URL may also stand in the command.",
      },
    },
  },
  estimatedLatency: "medium",
  requiredScopes: ["context:read", "knowledge:read", "store:write", "store:read", "secrets:github_token"],
  requiredSecretNames: ["github_token"],
  egressHosts: ["api.github.com"],
  tokenBudget: 100_000,
  configSchema: Settings,
  // A refusal to read some strange diff is no reason to lose what the static rules found in it.
  onRefusal: "continue",
  start: () => ({}),
  finish,

  graph: new StateGraph(ReviewState)
    .addNode("fetch_diff", node(fetchDiff))
    .addNode("split_files", node(splitFiles))
    .addNode("security", node(security))
    .addNode("style", node(style))
    .addNode("logic", node(logic))
    .addNode("performance", node(performance))
    .addNode("merge_results", node(mergeResults))
    .addNode("rank", node(rank))
    .addNode("summarise", node(summarise))
    .addEdge(START, "fetch_diff")
    .addEdge("fetch_diff", "split_files")
    .addConditionalEdges("split_files", toBranches, ["security", "style", "logic", "performance", "merge_results"])
    .addEdge(["security", "style", "logic", "performance"], "merge_results")
    .addEdge("merge_results", "rank")
    .addEdge("rank", "summarise")
    .addEdge("summarise", END),
});
