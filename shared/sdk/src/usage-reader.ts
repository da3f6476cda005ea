/** Reads token counts and the stop reason out of Messages API answers while their bytes pass by unchanged. */
import * as v from "valibot";

const Tokens = v.optional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))));
const Usage = v.object({ input_tokens: Tokens, output_tokens: Tokens, cache_creation_input_tokens: Tokens, cache_read_input_tokens: Tokens });
type Usage = v.InferOutput<typeof Usage>;

const Answer = v.object({ model: v.optional(v.string()), stop_reason: v.optional(v.nullable(v.string())), usage: v.optional(v.nullable(Usage)) });
const StreamEvent = v.variant("type", [
  v.object({ type: v.literal("message_start"), message: Answer }),
  v.object({ type: v.literal("message_delta"), delta: v.object({ stop_reason: v.optional(v.nullable(v.string())) }), usage: v.optional(v.nullable(Usage)) }),
]);

/** What one answer adds. `tokens` is the increase since the last report of the same answer, so an aborted stream counts too. */
export interface Seen {
  tokens: number;
  model?: string;
  refused: boolean;
  /** It ended at `max_tokens`. */
  isCutOff: boolean;
}

/** One line of a stream is far smaller; a longer one is not looked at. */
const MAX_LINE_CHARS = 1_000_000;

function total(usage: Usage): number {
  return (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Reads a whole JSON answer. An answer that is not a message (an error, a count of tokens) adds nothing. */
export function readAnswer(text: string): Seen | null {
  const answer = v.safeParse(Answer, parseJson(text));
  if (!answer.success) return null;
  const { model, stop_reason, usage } = answer.output;
  return { tokens: usage ? total(usage) : 0, model, refused: stop_reason === "refusal", isCutOff: stop_reason === "max_tokens" };
}

/** Passes a `text/event-stream` through byte for byte and calls `onSeen` whenever the counts in it grow. */
export function readStream(onSeen: (seen: Seen) => void): TransformStream<Uint8Array, Uint8Array> {
  const decoder = new TextDecoder();
  let tail = "";
  let latest: Usage = {};
  let reported = 0;

  function read(line: string): void {
    if (!line.startsWith("data:") || !line.includes('"message_')) return;
    const event = v.safeParse(StreamEvent, parseJson(line.slice(5)));
    if (!event.success) return;
    const { usage, stop_reason, model } = event.output.type === "message_start" ? event.output.message : { ...event.output.delta, usage: event.output.usage, model: undefined };
    // The counts of a delta are running totals, and it repeats only some of them.
    if (usage) latest = { ...latest, ...Object.fromEntries(Object.entries(usage).filter(([, count]) => typeof count === "number")) };
    const tokens = Math.max(total(latest) - reported, 0);
    reported += tokens;
    onSeen({ tokens, model, refused: stop_reason === "refusal", isCutOff: stop_reason === "max_tokens" });
  }

  return new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk);
      const lines = (tail + decoder.decode(chunk, { stream: true })).split("\n");
      tail = lines.pop() ?? "";
      if (tail.length > MAX_LINE_CHARS) tail = "";
      for (const line of lines) read(line);
    },
    flush() {
      read(tail);
    },
  });
}
