import { expect, test } from "vitest";
import { readMessagesRequest } from "../../shared/models/messages-api.ts";

const shapeOf = (body: object) => readMessagesRequest(Buffer.from(JSON.stringify({ model: "m", max_tokens: 1, messages: [{ role: "user", content: "x" }], ...body }))).shape;
const user = (content: unknown) => ({ messages: [{ role: "user", content }] });
const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "aGk=" } };
const pdf = { type: "document", source: { type: "base64", media_type: "application/pdf", data: "aGk=" } };

test.each<[string, object, object]>([
  ["plain text is what it is", {}, { images: 0, hasPackedDocument: false, usesCache: false }],
  ["images are counted, also in a tool's result", user([image, { type: "tool_result", content: [image, image] }]), { images: 3 }],
  ["a PDF is packed", user([pdf]), { hasPackedDocument: true }],
  ["a text document is not", user([{ type: "document", source: { type: "text", media_type: "text/plain", data: "hi" } }]), { hasPackedDocument: false }],
  ["caching is seen in the system prompt", { system: [{ type: "text", text: "s", cache_control: { type: "ephemeral" } }] }, { usesCache: true }],
  ["caching is seen on a tool", { tools: [{ name: "t", input_schema: {}, cache_control: { type: "ephemeral" } }] }, { usesCache: true }],
  ["caching is seen on the request itself", { cache_control: { type: "ephemeral" } }, { usesCache: true }],
  [
    "caching is seen in the middle of the messages",
    user([{ type: "tool_result", content: [{ type: "text", text: "x", cache_control: { type: "ephemeral", ttl: "1h" } }] }]),
    { usesCache: true },
  ],
])("%s", (_, body, shape) => {
  expect(shapeOf(body)).toMatchObject(shape);
});

test("tools that run in the plugin pass", () => {
  expect(() =>
    shapeOf({
      tools: [
        { name: "t", input_schema: {} },
        { type: "custom", name: "u" },
        { type: "bash_20250124", name: "bash" },
        { type: "memory_20250818", name: "memory" },
      ],
    }),
  ).not.toThrow();
});
