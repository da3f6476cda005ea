/**
 * How the scripted provider answers in a fault run. Each answer names its call's number, and each call has token numbers of its own, so
 * that a mix-up shows. Which task asked is written to a file beside the ledger, before the answer leaves.
 *
 * `[provider 529 2]` in the command makes the first two calls of that task go wrong in that way.
 */
import { appendFileSync } from "node:fs";
// Types only: the server waits for this module while it starts.
import type { Act, Script } from "../support/scripted-provider.ts";

const faulted = new Map<string, number>();

const script: Script = ({ call, text }) => {
  const marker = /\[mark ([\w-]+)\]/.exec(text)?.[1] ?? "";
  const question = Number(/\[question (\d)\]/.exec(text)?.[1] ?? 0);
  const file = process.env.FAULTS_MARKERS;
  // All that the prompt shows: another tenant's would be one too many.
  const marks = [...new Set([...text.matchAll(/\[mark ([\w-]+)\]/g)].map(([, mark]) => mark))];
  if (file) appendFileSync(file, `${JSON.stringify({ call, marker, question, marks })}\n`);
  const good: Act = {
    kind: "answer",
    content: [{ type: "text", text: `answer ${call} to question ${question} of [mark ${marker}]` }],
    delayMs: 20 + ((call * 37) % 160),
    usage: { input_tokens: 100 + (call % 89), output_tokens: 10 + (call % 31), cache_creation_input_tokens: call % 7, cache_read_input_tokens: call % 11 },
  };
  const [, kind = "", times = "1"] = /\[provider ([a-z0-9-]+) ?(\d*)\]/.exec(text) ?? [];
  const before = faulted.get(marker) ?? 0;
  if (kind === "" || before >= Number(times || 1)) return good;
  faulted.set(marker, before + 1);
  return wrong(kind, good);
};

function wrong(kind: string, good: Act): Act {
  switch (kind) {
    case "reset":
    case "end":
    case "overloaded":
      return { ...good, breakBy: kind, breakAfter: 1 };
    case "truncated":
      return { ...good, truncateTo: 0.5 };
    case "max-tokens":
      return { ...good, stopReason: "max_tokens" };
    case "refusal":
      return { ...good, content: [], stopReason: "refusal" };
    case "empty":
      return { ...good, content: [] };
    case "no-usage":
      return { ...good, usage: null };
    case "over-usage":
      return { ...good, usage: { input_tokens: 90_000, output_tokens: 9_000, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 } };
    case "hang":
      return { kind: "hang" };
    default:
      return { kind: "failure", status: Number(kind), ...(kind === "429" ? { retryAfterSec: 1 } : {}) };
  }
}

export default script;
