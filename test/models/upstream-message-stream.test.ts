import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { endOfLastEvent, eventsOf, type Message, MessageReader } from "../../shared/models/message-stream.ts";

const text = fc.string({ unit: "binary" }).map((one) => one.toWellFormed());
const json = fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.parse(JSON.stringify(value)));
const block = fc.oneof(
  fc.record({ type: fc.constant("text"), text }),
  fc.record({ type: fc.constant("thinking"), thinking: text, signature: text }),
  fc.record({ type: fc.constant("redacted_thinking"), data: text }),
  fc.record({ type: fc.constant("tool_use"), id: text, name: text, input: fc.dictionary(text, json).map((value) => JSON.parse(JSON.stringify(value))) }),
  fc.record({ type: fc.constant("web_search_tool_result"), content: json }),
);
const message: fc.Arbitrary<Message> = fc.record({
  id: fc.constant("msg_1"),
  type: fc.constant("message" as const),
  role: fc.constant("assistant"),
  model: fc.constant("m"),
  content: fc.array(block, { maxLength: 5 }),
  stop_reason: fc.constantFrom("end_turn", "tool_use", "max_tokens"),
  stop_sequence: fc.constantFrom(null, "###"),
  usage: fc.record({ input_tokens: fc.nat(), output_tokens: fc.nat(), cache_read_input_tokens: fc.nat() }),
});

function readAll(bytes: Buffer, cuts: number[] = []): MessageReader {
  const reader = new MessageReader();
  const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b);
  let from = 0;
  for (const end of ends) {
    reader.feed(bytes.subarray(from, end));
    from = end;
  }
  return reader;
}

describe("a message as events", () => {
  test("is read back as it was, wherever the bytes are cut", () => {
    fc.assert(
      fc.property(message, fc.array(fc.nat(5_000), { maxLength: 8 }), (one, cuts) => {
        const reader = readAll(Buffer.from([...eventsOf(one)].join("")), cuts);
        expect(reader.isWhole).toBe(true);
        expect(reader.hasFinalUsage).toBe(true);
        expect(JSON.stringify(reader.message)).toBe(JSON.stringify(one));
      }),
    );
  });

  test("keeps citations", () => {
    const cited: Message = {
      id: "m",
      type: "message",
      model: "m",
      content: [{ type: "text", text: "so", citations: [{ type: "char_location", cited_text: "x" }] }],
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: {},
    };
    expect(readAll(Buffer.from([...eventsOf(cited)].join(""))).message?.content).toEqual(cited.content);
  });

  test("does not lose the counts that only its first event carries", () => {
    const events = [
      '{"type":"message_start","message":{"id":"m","type":"message","model":"m","content":[],"usage":{"input_tokens":7,"output_tokens":1,"cache_read_input_tokens":3}}}',
      '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":null,"output_tokens":9}}',
      '{"type":"message_stop"}',
    ];
    expect(readAll(Buffer.from(events.map((one) => `data: ${one}\n\n`).join(""))).usage).toEqual({ input_tokens: 7, output_tokens: 9, cache_read_input_tokens: 3 });
  });

  test("survives events that it does not know, and lines that are no events", () => {
    const noise =
      'event: ping\ndata: {"type":"ping"}\n\n: a comment\n\nevent: new_kind\ndata: {"type":"new_kind"}\n\ndata: not json\n\ndata: {"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":"x"}}\n\n';
    const reader = readAll(Buffer.from(noise));
    expect([reader.message, reader.isWhole, reader.error]).toEqual([null, false, null]);
  });

  test("that ends with an error is not whole", () => {
    const reader = readAll(Buffer.from('event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'));
    expect([reader.isWhole, reader.error?.type]).toEqual([false, "overloaded_error"]);
  });
});

test.each([
  ["data: a\n\ndata: b", 9],
  ["data: a\r\n\r\ndata: b", 11],
  ["data: a\r\rdata: b", 9],
  ["data: a\n", 0],
  ["data: a\n\ndata: b\n\n", 18],
  ["", 0],
])("the last whole event of %j ends at %i", (bytes, end) => {
  expect(endOfLastEvent(Buffer.from(bytes))).toBe(end);
});
