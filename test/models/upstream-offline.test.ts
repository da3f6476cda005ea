import { describe, expect, test } from "vitest";
import { MessageReader } from "../../shared/models/message-stream.ts";
import { offlineMessage } from "../../shared/models/offline-language/answer.ts";
import { keySentences } from "../../shared/models/offline-language/key-sentences.ts";
import { openUpstream } from "../../shared/models/upstream.ts";

const ARTICLE = `Summarise the report on the harbour bridge.
The harbour bridge was closed on Monday after inspectors found cracks in two steel girders. I had soup for lunch.
Engineers say that the cracks in the girders grew because water got under the paint of the bridge. It was a sunny day.
The city will repair the bridge girders in March and expects the harbour to stay open. My neighbour has a cat that sleeps a lot.
Some people like long walks along quiet streets in autumn. The repair of the bridge costs four million. Blue is a popular colour for shirts.`;
const request = (content: unknown, more: object = {}) =>
  Buffer.from(
    JSON.stringify({
      model: "m",
      max_tokens: 1000,
      messages: [
        { role: "user", content: "Earlier words that do not count any more." },
        { role: "assistant", content: "Fine, go on." },
        { role: "user", content },
      ],
      ...more,
    }),
  );
const textOf = (bytes: Buffer) => String(offlineMessage(bytes).content[0]?.text);

describe("the offline model", () => {
  test("takes the sentences that the last turn is about, in their order", () => {
    const text = textOf(request(ARTICLE));
    expect(text).toMatch(/cracks in two steel girders[\s\S]*repair the bridge girders/);
    expect(text).not.toMatch(/soup|cat that sleeps|shirts|Earlier words/);
    for (const line of text.split("\n").slice(1)) expect(ARTICLE).toContain(line.replace(/^- /, ""));
  });

  test("says in its first line that there is no model, and what to set", () => {
    expect(textOf(request(ARTICLE)).split("\n")[0]).toMatch(/ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL/);
    expect(textOf(request("```\nconst a = 1;\n```"))).toMatch(/ANTHROPIC_API_KEY/);
  });

  test("gives the same bytes the same answer, and others another id", () => {
    expect(offlineMessage(request(ARTICLE))).toEqual(offlineMessage(request(ARTICLE)));
    expect(offlineMessage(request(ARTICLE)).id).not.toBe(offlineMessage(request(`${ARTICLE} `)).id);
  });

  test("reads blocks and the results of tools", () => {
    const text = textOf(
      request([
        { type: "tool_result", tool_use_id: "t", content: [{ type: "text", text: "The nested finding is about a leaking pipe." }] },
        { type: "text", text: "What does the finding say about it?" },
      ]),
    );
    expect(text).toContain("leaking pipe");
  });

  test("keeps to max_tokens, and says so", () => {
    expect(offlineMessage(request(ARTICLE, { max_tokens: 10 }))).toMatchObject({
      stop_reason: "max_tokens",
      content: [{ text: expect.stringMatching(/^.{40}$/s) }],
      usage: { input_tokens: 0, output_tokens: 0 },
    });
  });

  test("streams the message that it would have given", async () => {
    const body = request(ARTICLE, { stream: true });
    const { headers, body: stream } = await openUpstream({}).messages(body, { headers: {}, signal: AbortSignal.timeout(10_000) });
    expect(headers.get("content-type")).toBe("text/event-stream");
    const reader = new MessageReader();
    for await (const chunk of stream) reader.feed(chunk);
    expect(reader.isWhole).toBe(true);
    expect(reader.message).toEqual(offlineMessage(body));
  });

  test("does not stumble over what is no request", () => {
    for (const bytes of ["", "null", "[]", '{"messages":[{"role":"user"}]}', '{"messages":[{"role":"user","content":[null,7,{"content":[[]]}]}]}']) {
      expect(offlineMessage(Buffer.from(bytes)).content).toHaveLength(1);
    }
  });
});

test("code, tables and diffs are no sentences", () => {
  expect(keySentences("+ const total = items.map((x) => x * 2);\n| 1 | 2 | 3 | 4 |\n- a short one\nThis line is a sentence of its own.", 5)).toEqual([
    "This line is a sentence of its own.",
  ]);
});
