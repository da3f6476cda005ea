/** Bytes that never become a request: refused in the one format of errors. */
import { connect } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { stripForeignHeaders } from "../../scripts/local/public-gateway.ts";
import type { ErrorCode } from "../../shared/errors.ts";
import { type Listening, listen } from "../../shared/host/listen.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import type { ApiAnswer } from "../support/platform.ts";

let server: Listening;
beforeAll(async () => {
  server = await listen(() => new Response("well"), { port: 0, host: "127.0.0.1" });
});
afterAll(() => server?.close(0));

async function answerTo(bytes: string): Promise<ApiAnswer> {
  const socket = connect(server.port, "127.0.0.1");
  socket.write(bytes);
  let said = "";
  for await (const chunk of socket) said += chunk;
  const [head = "", text = ""] = said.split("\r\n\r\n");
  const [line = "", ...fields] = head.split("\r\n");
  const headers = new Headers(fields.map((field): [string, string] => [field.slice(0, field.indexOf(":")), field.slice(field.indexOf(":") + 1).trim()]));
  return { status: Number(line.split(" ")[1]), headers, text, body: JSON.parse(text) };
}

it.each<[string, string, ErrorCode, RegExp]>([
  ["headers of 20 kB", `GET / HTTP/1.1\r\nhost: x\r\nx-a: ${"x".repeat(20_000)}\r\n\r\n`, "PAYLOAD_TOO_LARGE", /16384 bytes/],
  ["an address of 20 kB", `GET /${"x".repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, "PAYLOAD_TOO_LARGE", /16384 bytes/],
  ["what is no HTTP", "hello\r\n\r\n", "INVALID_INPUT", /HTTP/],
  ["a header with a line break in its name", "GET / HTTP/1.1\r\nhost: x\r\nx y\r\n\r\n", "INVALID_INPUT", /HTTP/],
  ["two lengths", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", "INVALID_INPUT", /HTTP/],
  ["a length beside chunks", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "INVALID_INPUT", /HTTP/],
])("refuses %s, and ends the connection", async (_, bytes, code, message) => {
  const answer = await answerTo(bytes);
  expectRefusal(answer, code);
  expect(answer.text).toMatch(message);
  expect(Number(answer.headers.get("content-length"))).toBe(Buffer.byteLength(answer.text));
  expect(answer.headers.get("connection")).toBe("close");
});

it.each([
  ["no host", "GET / HTTP/1.0\r\n\r\n"],
  ["a host that is none", "GET / HTTP/1.1\r\nhost: x/#@evil\r\nconnection: close\r\n\r\n"],
  ["a backslash in its path", "GET /a\\b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"],
  ["an address of another scheme", "GET ftp://x/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"],
])("refuses a request with %s", async (_, bytes) => {
  expectRefusal(await answerTo(bytes), "INVALID_INPUT");
});

it("answers TRACE with headers of a proxy's as it answers all other methods", async () => {
  const request = stripForeignHeaders(new Request("http://x/v1/tasks", { headers: { forwarded: "for=x", "x-mine": "1" } }));
  expect([...request.headers.keys()]).toEqual(["x-mine"]);
  const traced = Object.defineProperty(new Request("http://x/v1/tasks", { headers: { forwarded: "for=x", "x-mine": "1" } }), "method", { value: "TRACE" });
  expect(stripForeignHeaders(traced)).toMatchObject({ method: "TRACE", url: "http://x/v1/tasks" });
  expect([...stripForeignHeaders(traced).headers.keys()]).toEqual(["x-mine"]);
});
