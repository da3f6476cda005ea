/** A message of the Messages API as Server-Sent Events: read into one message, and written from one. */
import { createParser } from "eventsource-parser";
import * as v from "valibot";
import { parseJson } from "./messages-api.ts";

/** Checks without rebuilding: a rebuilt object has its keys in another order, and a plugin may send it back as a part of its next request. */
const asItCame = <const S extends v.GenericSchema>(schema: S) => v.custom<v.InferOutput<S>>((value) => v.is(schema, value), "has not the expected shape");

const Block = asItCame(v.looseObject({ type: v.string() }));
type Block = v.InferOutput<typeof Block>;
const JsonObject = asItCame(v.record(v.string(), v.unknown()));

const MessageShape = v.looseObject({
  type: v.literal("message"),
  id: v.string(),
  model: v.string(),
  content: v.array(Block),
  stop_reason: v.optional(v.nullable(v.string())),
  stop_sequence: v.optional(v.nullable(v.string())),
  usage: v.optional(v.unknown()),
});
export const Message = asItCame(MessageShape);
export type Message = v.InferOutput<typeof Message>;

const Delta = v.variant("type", [
  v.object({ type: v.literal("text_delta"), text: v.string() }),
  v.object({ type: v.literal("thinking_delta"), thinking: v.string() }),
  v.object({ type: v.literal("signature_delta"), signature: v.string() }),
  v.object({ type: v.literal("input_json_delta"), partial_json: v.string() }),
  v.object({ type: v.literal("citations_delta"), citation: v.unknown() }),
]);
const Index = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(10_000));

const StreamEvent = v.variant("type", [
  v.object({ type: v.literal("message_start"), message: Message }),
  v.object({ type: v.literal("content_block_start"), index: Index, content_block: Block }),
  v.object({ type: v.literal("content_block_delta"), index: Index, delta: Delta }),
  v.object({ type: v.literal("content_block_stop"), index: Index }),
  v.object({ type: v.literal("message_delta"), delta: JsonObject, usage: v.optional(v.nullable(JsonObject)) }),
  v.object({ type: v.literal("message_stop") }),
  v.object({ type: v.literal("error"), error: v.looseObject({ type: v.string() }) }),
]);

/** Gathers a stream's events. Kinds that it does not know (`ping`, and what the protocol may get) add nothing. */
export class MessageReader {
  message: Message | null = null;
  /** `message_stop` was read: the message is whole. */
  isWhole = false;
  /** The stream's own error event. */
  error: { type: string } | null = null;
  /** The last word on usage was said: `message_delta` carries the final counts. */
  hasFinalUsage = false;
  /** It began without counts, which clients rely on: such a message can only be told as a whole, with counts of our own. */
  isUncounted = false;
  /** Length of the texts and inputs that were read. */
  answerChars = 0;

  readonly #decoder = new TextDecoder();
  readonly #inputs = new Map<number, string>();
  readonly #parser = createParser({ onEvent: ({ data }) => this.#read(data) });

  feed(bytes: Uint8Array): void {
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
  }

  get usage(): unknown {
    return this.message?.usage;
  }

  #read(data: string): void {
    const parsed = v.safeParse(StreamEvent, parseJson(data));
    if (!parsed.success) return;
    const event = parsed.output;
    switch (event.type) {
      case "message_start":
        this.message = { ...event.message, content: [...event.message.content] };
        this.isUncounted = !v.is(JsonObject, event.message.usage);
        return;
      case "content_block_start":
        if (this.message) this.message.content[event.index] = { ...event.content_block };
        return;
      case "content_block_delta":
        this.#extend(event.index, event.delta);
        return;
      case "content_block_stop":
        this.#closeBlock(event.index);
        return;
      case "message_delta":
        if (!this.message) return;
        this.hasFinalUsage ||= typeof event.usage?.output_tokens === "number";
        // The counts of a delta are running totals, and it repeats only some of them.
        Object.assign(this.message, event.delta, { usage: { ...asObject(this.message.usage), ...withoutNulls(event.usage) } });
        return;
      case "message_stop":
        this.isWhole = this.message !== null;
        return;
      case "error":
        this.error = event.error;
    }
  }

  #extend(index: number, delta: v.InferOutput<typeof Delta>): void {
    const block = this.message?.content[index];
    if (!block) return;
    switch (delta.type) {
      case "text_delta":
        block.text = asText(block.text) + delta.text;
        this.answerChars += delta.text.length;
        return;
      case "thinking_delta":
        block.thinking = asText(block.thinking) + delta.thinking;
        this.answerChars += delta.thinking.length;
        return;
      case "signature_delta":
        block.signature = delta.signature;
        return;
      case "input_json_delta":
        this.#inputs.set(index, (this.#inputs.get(index) ?? "") + delta.partial_json);
        this.answerChars += delta.partial_json.length;
        return;
      case "citations_delta":
        block.citations = [...(Array.isArray(block.citations) ? block.citations : []), delta.citation];
    }
  }

  #closeBlock(index: number): void {
    const block = this.message?.content[index];
    const input = this.#inputs.get(index);
    if (!block || input === undefined) return;
    block.input = input === "" ? {} : (parseJson(input) ?? {});
  }
}

/** Just past the last whole event in these bytes; 0 when there is none. */
export function endOfLastEvent(bytes: Buffer): number {
  const ends = ["\n\n", "\n\r\n", "\r\r"].map((blankLine) => {
    const at = bytes.lastIndexOf(blankLine);
    return at < 0 ? 0 : at + blankLine.length;
  });
  return Math.max(...ends);
}

/** The events from `message_start` to `message_stop` that tell this message, each block in one delta. */
export function* eventsOf(message: Message): Generator<string> {
  const usage = asObject(message.usage);
  yield event("message_start", { message: { ...message, content: [], stop_reason: null, stop_sequence: null, usage: { ...usage, output_tokens: 0 } } });
  for (const [index, block] of message.content.entries()) {
    const { start, deltas } = unfold(block);
    yield event("content_block_start", { index, content_block: start });
    for (const delta of deltas) yield event("content_block_delta", { index, delta });
    yield event("content_block_stop", { index });
  }
  yield event("message_delta", { delta: { stop_reason: message.stop_reason ?? null, stop_sequence: message.stop_sequence ?? null }, usage });
  yield event("message_stop", {});
}

/** A block as it begins, and what is then added to it. Blocks that the protocol never sends in parts come whole. */
function unfold(block: Block): { start: Block; deltas: object[] } {
  if (block.type === "text") {
    const { citations, ...rest } = block;
    const quoted = Array.isArray(citations) ? citations.map((citation) => ({ type: "citations_delta", citation })) : [];
    return {
      start: { ...rest, text: "", ...(citations === undefined ? {} : { citations: citations === null ? null : [] }) },
      deltas: [{ type: "text_delta", text: asText(block.text) }, ...quoted],
    };
  }
  if (block.type === "thinking") {
    const deltas = [
      { type: "thinking_delta", thinking: asText(block.thinking) },
      { type: "signature_delta", signature: asText(block.signature) },
    ];
    return { start: { ...block, thinking: "", signature: "" }, deltas };
  }
  if (block.type === "tool_use" || block.type === "server_tool_use") {
    return { start: { ...block, input: {} }, deltas: [{ type: "input_json_delta", partial_json: JSON.stringify(block.input ?? {}) }] };
  }
  return { start: block, deltas: [] };
}

function event(type: string, members: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`;
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function asObject(value: unknown): Record<string, unknown> {
  const parsed = v.safeParse(JsonObject, value);
  return parsed.success ? parsed.output : {};
}

function withoutNulls(value: Record<string, unknown> | null | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value ?? {}).filter(([, member]) => member !== null));
}
