/**
 * How the scripted provider answers in a fault run. Each answer names its call's number, and each call has token numbers of its own, so
 * that a mix-up shows. Which task asked is written to a file beside the ledger, before the answer leaves.
 */
import { appendFileSync } from "node:fs";
// Types only: the server waits for this module while it starts.
import type { Script } from "../support/scripted-provider.ts";

const script: Script = ({ call, text }) => {
  const marker = /\[mark ([\w-]+)\]/.exec(text)?.[1] ?? "";
  const question = Number(/\[question (\d)\]/.exec(text)?.[1] ?? 0);
  const file = process.env.FAULTS_MARKERS;
  if (file) appendFileSync(file, `${JSON.stringify({ call, marker, question })}\n`);
  return {
    kind: "answer",
    content: [{ type: "text", text: `answer ${call} to question ${question} of ${marker}` }],
    delayMs: 20 + ((call * 37) % 160),
    usage: { input_tokens: 100 + (call % 89), output_tokens: 10 + (call % 31), cache_creation_input_tokens: call % 7, cache_read_input_tokens: call % 11 },
  };
};

export default script;
