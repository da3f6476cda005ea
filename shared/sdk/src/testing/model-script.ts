/** Answers of a model that a test writes down, put into the wire format of the Messages API. */
import * as v from "valibot";

export interface ModelCall {
  /** The node that asked. */
  node: string;
  /** 1 for the first call of this node with this body, 2 for the next … */
  occurrence: number;
  tenantId: string;
  model: string;
  stream: boolean;
  /** The request's body, parsed. */
  body: MessagesRequest;
}

export interface ScriptedUsage {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens: number;
  cache_read_input_tokens: number;
}

/** A string is the answer's text. */
export type ModelAnswer =
  | string
  | { text?: string; stopReason?: "end_turn" | "max_tokens" | "refusal" | "stop_sequence"; usage?: Partial<ScriptedUsage>; model?: string }
  /** An HTTP error in the provider's shape; `errorCode` is what the gateway adds, such as TOKEN_BUDGET_EXCEEDED. */
  | { error: { status: number; type: string; message?: string; errorCode?: string } }
  /** The connection is closed in the middle of the answer, or nothing ever comes. */
  | { fault: "breaks_off" | "hangs" };

/** A list is used up in order; a function answers by what was asked, which parallel branches need. */
export type ModelScript = ModelAnswer[] | ((call: ModelCall) => ModelAnswer | Promise<ModelAnswer>);

const Block = v.looseObject({ type: v.string(), text: v.optional(v.string()) });
const Content = v.union([v.string(), v.array(Block)]);
export const MessagesRequest = v.looseObject({
  model: v.string(),
  max_tokens: v.number(),
  messages: v.array(v.looseObject({ role: v.string(), content: Content })),
  system: v.optional(Content),
  stream: v.optional(v.boolean(), false),
});
export type MessagesRequest = v.InferOutput<typeof MessagesRequest>;

function textOf(content: v.InferOutput<typeof Content>): string {
  return typeof content === "string" ? content : content.map((block) => block.text ?? "").join("\n");
}

/** What the platform answers without a provider's key: the first sentences of what it was asked, at no cost. */
export function offlineAnswer({ messages }: MessagesRequest): ModelAnswer {
  const asked = textOf(messages.at(-1)?.content ?? "");
  const text =
    asked
      .match(/[^.!?\n]+[.!?]?/g)
      ?.slice(0, 3)
      .join("")
      .trim() ?? "";
  return { text, model: "offline-extractive", usage: { input_tokens: 0, output_tokens: 0 } };
}

export function messageOf(answer: Exclude<ModelAnswer, { error: unknown } | { fault: unknown }>, request: MessagesRequest) {
  const { text = "", stopReason = "end_turn", usage = {}, model = request.model } = typeof answer === "string" ? { text: answer } : answer;
  const asked = request.messages.reduce((length, { content }) => length + textOf(content).length, 0);
  return {
    id: "msg_scripted",
    type: "message",
    role: "assistant",
    model,
    content: text ? [{ type: "text", text }] : [],
    stop_reason: stopReason,
    stop_sequence: null,
    usage: {
      input_tokens: Math.ceil(asked / 4),
      output_tokens: Math.ceil(text.length / 4),
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      ...usage,
    },
  };
}
export type Message = ReturnType<typeof messageOf>;

/** The same message as a provider streams it: the text in two pieces, running totals at the end. */
export function eventsOf(message: Message): string[] {
  const { content, stop_reason, stop_sequence, usage } = message;
  const text = content[0]?.text ?? "";
  const half = Math.ceil(text.length / 2);
  const deltas = [text.slice(0, half), text.slice(half)].filter((piece) => piece.length > 0);
  const events = [
    { type: "message_start", message: { ...message, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } } },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    ...deltas.map((piece) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: piece } })),
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason, stop_sequence }, usage: { output_tokens: usage.output_tokens } },
    { type: "message_stop" },
  ];
  return events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
}
