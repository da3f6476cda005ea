/**
 * What the offline model says: sentences of the last user turn, taken as they are. It is no language model and does not claim to
 * be one; its use is that a platform without a key runs from end to end and shows what a key would add.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Message } from "../message-stream.ts";
import { parseJson } from "../messages-api.ts";
import { keySentences } from "./key-sentences.ts";

export const OFFLINE_MODEL = "offline-extractive";
const NOTE = "No language model is configured (set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL), so these are sentences taken from the request:";
const NOTHING_FOUND = "No language model is configured (set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL), and the request holds no sentence to take.";
const MAX_SENTENCES = 5;
/** What a token comes to, for `max_tokens`. */
const CHARS_PER_TOKEN = 4;

const Block = v.looseObject({ type: v.optional(v.unknown()), text: v.optional(v.unknown()), content: v.optional(v.unknown()) });
const Request = v.looseObject({
  max_tokens: v.optional(v.number(), 1024),
  messages: v.optional(v.array(v.looseObject({ role: v.optional(v.unknown()), content: v.optional(v.unknown()) })), []),
});

/** The same bytes always give the same message. */
export function offlineMessage(request: Uint8Array): Message {
  const parsed = v.safeParse(Request, parseJson(request));
  const { max_tokens, messages } = parsed.success ? parsed.output : { max_tokens: 1024, messages: [] };
  const turn = messages.findLast((message) => message.role === "user");
  const sentences = keySentences(textOf(turn?.content), MAX_SENTENCES);
  const whole = sentences.length === 0 ? NOTHING_FOUND : [NOTE, ...sentences.map((sentence) => `- ${sentence}`)].join("\n");
  const text = whole.slice(0, max_tokens * CHARS_PER_TOKEN);
  return {
    id: `msg_offline_${createHash("sha256").update(request).digest("hex").slice(0, 24)}`,
    type: "message",
    role: "assistant",
    model: OFFLINE_MODEL,
    content: [{ type: "text", text, citations: null }],
    stop_reason: text.length < whole.length ? "max_tokens" : "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 0, output_tokens: 0, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 },
  };
}

/** The text of a turn, also what tools gave back in it. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  const parts: string[] = [];
  const lists = [content];
  while (lists.length > 0) {
    const list = lists.shift();
    if (!Array.isArray(list)) continue;
    for (const item of list) {
      const block = v.safeParse(Block, item);
      if (!block.success) continue;
      if (block.output.type === "text" && typeof block.output.text === "string") parts.push(block.output.text);
      if (typeof block.output.content === "string") parts.push(block.output.content);
      else lists.push(block.output.content);
    }
  }
  return parts.join("\n");
}
