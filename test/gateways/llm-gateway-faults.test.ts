import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../../scripts/local/child.ts";
import { type Act, answer, endedEarly, failure, hang, hold, overloadedInStream, resetMidStream, truncatedJson } from "../support/scripted-provider.ts";
import { ASK, type Line, lineTo, openRig, type Rig, type RigOptions, type Servers, startServers } from "./llm-gateway-rig.ts";

let servers: Servers;
let rig: Rig | undefined;
let line: Line | undefined;
beforeAll(async () => {
  servers = await startServers();
}, 60_000);
afterAll(() => servers.stop());
afterEach(async () => {
  line?.mend();
  await rig?.stop();
  await line?.stop();
  rig = undefined;
  line = undefined;
});
const open = async (options?: RigOptions): Promise<Rig> => {
  rig = await openRig(servers, options);
  return rig;
};
const STREAMED = { ...ASK, stream: true };

describe("a provider that refuses", () => {
  test.each<[number, string, number | undefined]>([
    [400, "invalid_request_error", undefined],
    [401, "authentication_error", undefined],
    [429, "rate_limit_error", 7],
    [500, "api_error", undefined],
    [529, "overloaded_error", 3],
  ])("with %i is heard in its own words", async (status, type, retryAfterSec) => {
    const { client, journal, provider } = await open({ script: () => failure(status, { retryAfterSec, message: "in the provider's words" }) });
    const error = await client()
      .messages.create(ASK)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ status, type, message: expect.stringContaining("in the provider's words"), requestID: provider.ledger[0]?.requestId });
    const headers = error instanceof Error && "headers" in error && error.headers instanceof Headers ? error.headers : new Headers();
    expect(headers.get("retry-after")).toBe(retryAfterSec === undefined ? null : String(retryAfterSec));
    expect(await journal()).toMatchObject([{ state: "failed", cost_micro_usd: "0", error: { type, status } }]);
  });

  test("is asked again when the plugin asks again", async () => {
    const { post, journal } = await open({ script: ({ call }) => (call === 1 ? failure(529) : answer("ok")) });
    expect([(await post(ASK)).status, (await post(ASK)).status]).toEqual([529, 200]);
    expect((await journal()).map((row) => row.state)).toEqual(["failed", "done"]);
  });

  test("with a page of a proxy is told in the protocol's shape", async () => {
    const { createServer } = await import("node:http");
    const proxy = createServer((_, response) => response.writeHead(302, { location: "https://evil.example" }).end("<html>moved</html>")).listen(0, "127.0.0.1");
    await new Promise((resolve) => proxy.once("listening", resolve));
    const address = proxy.address();
    const { post } = await open({ baseUrl: `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}` });
    const response = await post(ASK);
    expect([response.status, response.headers.get("location")]).toEqual([502, null]);
    expect(await response.json()).toMatchObject({ type: "error", error: { type: "api_error" } });
    proxy.close();
  });

  test("every connection is overloaded, as the protocol says it", async () => {
    const { client, journal } = await open({ baseUrl: `http://127.0.0.1:${await freePort()}` });
    await expect(client().messages.create(ASK)).rejects.toMatchObject({ status: 529, type: "overloaded_error" });
    expect(await journal()).toMatchObject([{ state: "failed", error: { type: "upstream_error" } }]);
  });
});

describe("a provider that breaks off", () => {
  test.each<[string, () => Act]>([
    ["resets the connection", () => resetMidStream()],
    ["closes in the middle of the JSON", truncatedJson],
  ])("and %s gives no answer, and costs nothing", async (_, script) => {
    const { client, journal } = await open({ script });
    await expect(client().messages.create(ASK)).rejects.toMatchObject({ status: 502, type: "api_error" });
    expect(await journal()).toMatchObject([{ state: "failed", cost_micro_usd: "0", answer: null }]);
  });

  test.each<[string, () => Act, string, string]>([
    ["resets the connection", () => resetMidStream(), "api_error", "upstream_error"],
    ["ends early", () => endedEarly(), "api_error", "upstream_error"],
    ["says overloaded_error in the stream", () => overloadedInStream(), "overloaded_error", "overloaded_error"],
  ])("a stream and %s is heard as an error, and what it counted is kept", async (_, script, said, journalled) => {
    const { client, journal } = await open({ script });
    await expect(client().messages.stream(ASK).finalMessage()).rejects.toMatchObject({ type: said });
    expect(await journal()).toMatchObject([{ state: "failed", cost_micro_usd: "315", error: { type: journalled }, input_tokens: 100, output_tokens: 1 }]);
  });
});

describe("a cancelled task", () => {
  test("has its provider's socket closed by the wake-up call", async () => {
    const { post, provider, ringCancel, journal } = await open({ script: hang });
    const call = post(ASK);
    await provider.arrived(1);
    await ringCancel();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    const response = await call;
    expect([response.status, response.headers.get("aau-error-code")]).toEqual([403, "CANCELLED"]);
    expect(await journal()).toMatchObject([{ state: "failed", cost_micro_usd: "0", error: { type: "aborted", reason: "cancelled" } }]);
  });

  test("has it closed without Redis too", async () => {
    const { post, provider, requestCancel } = await open({ script: hang, redisUrl: `redis://127.0.0.1:${await freePort()}` });
    const call = post(ASK);
    await provider.arrived(1);
    await requestCancel();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    expect((await call).headers.get("aau-error-code")).toBe("CANCELLED");
  });

  test("has it closed in the middle of a stream that nobody reads", async () => {
    const { post, provider, ringCancel, journal } = await open({ script: () => answer("one two three", { breakAfter: 1, breakBy: "pause", until: new Promise(() => {}) }) });
    const response = await post(STREAMED);
    await ringCancel();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    expect(await response.text()).toMatch(/event: error\ndata: .*"CANCELLED"/);
    expect(await journal()).toMatchObject([{ state: "failed", error: { reason: "cancelled" }, input_tokens: 100 }]);
  });

  test("leaves the calls of other tasks open", async () => {
    const held = hold();
    const { post, provider, ringCancel, newTask, token } = await open({ script: ({ call }) => (call === 1 ? hang() : answer("ok", { after: held.gone })) });
    const cancelled = post(ASK);
    await provider.arrived(1);
    const other = post(ASK, { token: token(await newTask()) });
    await provider.arrived(2);
    await ringCancel();
    expect((await cancelled).status).toBe(403);
    held.letGo();
    expect((await other).status).toBe(200);
  });
});

describe("an executor that lost its task", () => {
  test("has its open calls closed", async () => {
    const { post, provider, takeOver, journal } = await open({ script: hang });
    const call = post(ASK);
    await provider.arrived(1);
    await takeOver();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    expect((await call).headers.get("aau-error-code")).toBe("LEASE_LOST");
    expect(await journal()).toMatchObject([{ state: "unknown", cost_micro_usd: "0" }]);
  });

  test("gets no answer to a call that was given up, and the call is not billed", async () => {
    const held = hold();
    const { post, provider, journal, task } = await open({ script: () => answer("too late", { after: held.gone }) });
    const call = post(ASK);
    await provider.arrived(1);
    await servers.admin.query("UPDATE llm_calls SET state = 'unknown' WHERE task_id = $1", [task.id]);
    held.letGo();
    const response = await call;
    expect([response.status, response.headers.get("aau-error-code")]).toEqual([403, "LEASE_LOST"]);
    expect(await response.text()).not.toContain("too late");
    expect(await journal()).toMatchObject([{ state: "unknown", input_tokens: 100 }]);
  });
});

describe("a plugin that hangs up", () => {
  test("in the middle of a stream closes the provider's socket", async () => {
    const { post, provider, journal } = await open({ script: () => answer("one two three", { breakAfter: 1, breakBy: "pause", until: new Promise(() => {}) }) });
    const gone = new AbortController();
    const response = await post(STREAMED, { signal: gone.signal });
    await response.body?.getReader().read();
    gone.abort();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    await expect
      .poll(() => journal(), { timeout: 10_000 })
      .toMatchObject([{ state: "failed", error: { type: "aborted", reason: "hung_up" }, input_tokens: 100, cost_micro_usd: "315" }]);
  });

  test("before the answer closes it as well", async () => {
    const { post, provider, journal } = await open({ script: hang });
    const gone = new AbortController();
    const call = post(ASK, { signal: gone.signal }).catch(() => null);
    await provider.arrived(1);
    gone.abort();
    expect(await provider.ended(1)).toMatchObject({ closedEarly: true });
    await call;
    await expect.poll(() => journal(), { timeout: 10_000 }).toMatchObject([{ state: "failed", error: { type: "aborted", reason: "hung_up" } }]);
  });
});

describe("without PostgreSQL", () => {
  const openOnLine = async (options: RigOptions): Promise<Rig & { way: Line }> => {
    line = await lineTo(servers.databaseUrl);
    return { ...(await open({ ...options, databaseUrl: line.url })), way: line };
  };

  test("no call is made", async () => {
    const { post, provider, way } = await openOnLine({ script: () => answer("never") });
    way.cut();
    const response = await post(ASK);
    expect([response.status, response.headers.get("aau-error-code"), response.headers.get("retry-after")]).toEqual([503, "SERVICE_UNAVAILABLE", "1"]);
    expect(await response.json()).toMatchObject({ type: "error", error: { type: "api_error" } });
    expect(provider.ledger).toEqual([]);
  });

  test.each([ASK, STREAMED])("for a moment, an answer waits until it is written down", async (ask) => {
    const held = hold();
    const { post, provider, journal, way } = await openOnLine({ script: () => answer("patience", { after: held.gone }) });
    const call = post(ask);
    await provider.arrived(1);
    way.cut();
    held.letGo();
    await way.missed();
    way.mend();
    const response = await call;
    expect(await response.text()).toContain("patience");
    expect(await journal()).toMatchObject([{ state: "done", cost_micro_usd: "600" }]);
  });

  test.each([ASK, STREAMED])("for longer, an answer is withheld, and stays known and unbilled", async (ask) => {
    const held = hold();
    const { post, provider, journal, way } = await openOnLine({ script: () => answer("patience", { after: held.gone }) });
    const call = post(ask);
    await provider.arrived(1);
    way.cut();
    held.letGo();
    const text = await (await call).text();
    expect(text).toContain("SERVICE_UNAVAILABLE");
    expect(await journal()).toMatchObject([{ state: "started", cost_micro_usd: "0" }]);
  }, 20_000);
});
