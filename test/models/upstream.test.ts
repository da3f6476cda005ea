import { afterEach, describe, expect, test } from "vitest";
import { openUpstream, troubleOf, type Upstream } from "../../shared/models/upstream.ts";
import { answer, hang, type Script, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

let provider: ScriptedProvider | undefined;
let upstream: Upstream | undefined;
afterEach(async () => {
  await upstream?.close();
  await provider?.stop();
});

async function open(script: Script, path = ""): Promise<{ upstream: Upstream; provider: ScriptedProvider }> {
  provider = await startScriptedProvider(script);
  upstream = openUpstream({ apiKey: "sk-ant-scripted", baseUrl: `${provider.url}${path}` });
  return { upstream, provider };
}
const BODY = Buffer.from('{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}');
const ask = (one: Upstream, signal: AbortSignal = AbortSignal.timeout(10_000)) => one.messages(BODY, { headers: {}, signal });

describe("a live upstream", () => {
  test("sends what the provider needs, and the body as it is", async () => {
    const seen: { headers: object; text: string }[] = [];
    const opened = await open((request) => answer(`hi ${seen.push(request)}`), "/");
    const { status, headers, body } = await ask(opened.upstream);
    expect([status, headers.get("request-id")]).toEqual([200, opened.provider.ledger[0]?.requestId]);
    expect(await new Response(body).json()).toMatchObject({ content: [{ text: "hi 1" }] });
    expect(seen[0]).toMatchObject({ text: BODY.toString(), headers: { "x-api-key": "sk-ant-scripted", "anthropic-version": "2023-06-01", "content-type": "application/json" } });
  });

  test("closes the provider's socket when the call is aborted before the answer", async () => {
    const opened = await open(() => hang());
    const stop = new AbortController();
    const call = ask(opened.upstream, stop.signal).catch((error: unknown) => error);
    await opened.provider.arrived(1);
    stop.abort(new Error("enough"));
    expect(await call).toMatchObject({ message: "enough" });
    expect(await opened.provider.ended(1)).toMatchObject({ closedEarly: true });
  });

  test("closes it in the middle of a stream, also while nobody reads", async () => {
    const opened = await open(() => answer("one two", { breakAfter: 1, breakBy: "pause", until: new Promise(() => {}) }));
    const stop = new AbortController();
    const { body } = await opened.upstream.messages(Buffer.from(BODY.toString().replace("{", '{"stream":true,')), { headers: {}, signal: stop.signal });
    stop.abort();
    expect(await opened.provider.ended(1)).toMatchObject({ closedEarly: true });
    await expect(new Response(body).text()).rejects.toThrow();
  });

  test("closes it when the reader turns away", async () => {
    const opened = await open(() => answer("one two", { breakAfter: 1, breakBy: "pause", until: new Promise(() => {}) }));
    const { body } = await opened.upstream.messages(Buffer.from(BODY.toString().replace("{", '{"stream":true,')), { headers: {}, signal: AbortSignal.timeout(10_000) });
    await body.cancel();
    expect(await opened.provider.ended(1)).toMatchObject({ closedEarly: true });
  });

  test("charges only where there is a key", () => {
    const baseUrl = "http://127.0.0.1:1";
    const opened = [openUpstream({ baseUrl }), openUpstream({ baseUrl, apiKey: "k" }), openUpstream({ apiKey: "k" }), openUpstream({})];
    expect(opened.map(({ live, charges }) => ({ live, charges }))).toEqual([
      { live: true, charges: false },
      { live: true, charges: true },
      { live: true, charges: true },
      { live: false, charges: false },
    ]);
  });

  test("asks for the model that was set, else for the one that was named", () => {
    expect(openUpstream({ apiKey: "k", model: "local" }).resolveModel("claude-opus-5")).toBe("local");
    expect(openUpstream({ apiKey: "k" }).resolveModel("claude-opus-5")).toBe("claude-opus-5");
  });
});

test.each([
  ["UND_ERR_CONNECT_TIMEOUT", 504, "timeout_error"],
  ["UND_ERR_HEADERS_TIMEOUT", 504, "timeout_error"],
  ["UND_ERR_BODY_TIMEOUT", 504, "timeout_error"],
  ["ECONNREFUSED", 529, "overloaded_error"],
  ["ENOTFOUND", 529, "overloaded_error"],
  ["ECONNRESET", 502, "api_error"],
  ["UND_ERR_SOCKET", 502, "api_error"],
])("%s is told as %i %s", (code, status, type) => {
  expect(troubleOf(Object.assign(new Error("no"), { code }))).toMatchObject({ status, type });
});
