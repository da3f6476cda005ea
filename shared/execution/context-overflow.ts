/** What is left out of an input that does not fit into the model's context: the oldest half of the history, or else the knowledge. */
import type { InputEnvelope, Warning } from "../sdk/src/envelopes.ts";

/** Null: there is nothing that could be left out. */
export function withLessContext(input: InputEnvelope): { input: InputEnvelope; warning: Warning } | null {
  const { conversation_history: history, org_knowledge_chunks: knowledge } = input.context;
  if (history.length > 0) {
    const dropped = Math.ceil(history.length / 2);
    return less(input, { conversation_history: history.slice(dropped) }, `the oldest ${dropped} of ${history.length} turns of the conversation were`);
  }
  if (knowledge.length > 0) return less(input, { org_knowledge_chunks: [] }, `${knowledge.length} passages of the organisation's documents were`);
  return null;
}

function less(input: InputEnvelope, context: Partial<InputEnvelope["context"]>, what: string) {
  return {
    input: { ...input, context: { ...input.context, ...context } },
    warning: { code: "CONTEXT_WINDOW_OVERFLOW", message: `The input did not fit into the model's context; ${what} left out.` },
  };
}
