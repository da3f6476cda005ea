import { fork } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { NodeContext, PluginDefinition } from "../../shared/sdk/src/index.ts";
import { type PluginServer, serve } from "../../shared/sdk/src/serve.ts";
import { PlatformStandIn } from "../../shared/sdk/src/testing/platform-stand-in.ts";
import { executeRequest, HEADERS, INPUT } from "./execute-request.ts";
import { pluginOf } from "./plugins.ts";

let server: PluginServer | undefined;
afterEach(async () => {
  vi.useRealTimers();
  await server?.close();
  server = undefined;
});

const NOWHERE = { llmGatewayUrl: "http://127.0.0.1:9", scopeGatewayUrl: "http://127.0.0.1:9/" };

async function serving(
  work: (ctx: NodeContext, task: string) => string | Promise<string>,
  more: Partial<PluginDefinition<{ task: string; answer: string }>> = {},
): Promise<string> {
  server = await serve(pluginOf(work, more), { port: 0, hostname: "127.0.0.1", signals: false, log: () => {}, ...NOWHERE });
  return server.url;
}

/** A promise and the way to fulfil it. */
function gate(): { opened: Promise<void>; open(): void } {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

describe("POST /execute", () => {
  it("streams one event a line and ends with the output", async () => {
    const url = await serving((ctx, task) => {
      ctx.report("half");
      return task;
    });
    const response = await executeRequest(url, {}, { "aau-request-id": "req_abc" });
    expect([response.status, response.headers.get("content-type"), response.headers.get("aau-request-id")]).toEqual([200, "application/x-ndjson", "req_abc"]);
    const events = (await response.text())
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ type }) => type)).toEqual(["node_started", "report", "node_finished", "output"]);
    expect(events[2]).toEqual({ type: "node_finished", node: "work", duration_ms: expect.any(Number) });
    expect(events[3].envelope).toMatchObject({ task_id: "task_1", status: "success", result: "do" });
  });

  it("sends each event when it happens, not when the next one does", async () => {
    const { opened, open } = gate();
    const url = await serving(async () => {
      await opened;
      return "late";
    });
    const response = await executeRequest(url, {});
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader?.read())?.value).toBe('{"type":"node_started","node":"work"}\n');
    open();
    expect((await reader?.read())?.value).toContain("node_finished");
    await reader?.cancel();
  });

  it("says every five seconds that it is alive", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { opened, open } = gate();
    const url = await serving(async () => {
      await opened;
      return "late";
    });
    const response = await executeRequest(url, {});
    vi.advanceTimersByTime(10_000);
    open();
    const types = (await response.text())
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).type);
    expect(types).toEqual(["node_started", "alive", "alive", "node_finished", "output"]);
  });

  it("aborts the execution when the platform hangs up", async () => {
    const started = gate();
    const aborted = gate();
    const url = await serving(async ({ signal }) => {
      signal.addEventListener("abort", () => aborted.open());
      started.open();
      await aborted.opened;
      return "";
    });
    const hangUp = new AbortController();
    const response = await executeRequest(url, {}, {}, hangUp.signal);
    await started.opened;
    hangUp.abort();
    await expect(response.text()).rejects.toThrow();
    await aborted.opened;
  });

  it.each<[string, string | object, Record<string, string>, number, string]>([
    ["no JSON", "{", {}, 422, "not JSON"],
    ["an empty body", "", {}, 422, "not JSON"],
    ["null", "null", {}, 422, "body: expected Object"],
    ["an empty task", { task_description: "" }, {}, 422, "task_description: expected >=1"],
    ["a wrong type deep inside", { context: { tenant_id: "t", user_id: null, secrets: { hunter2: 5 } } }, {}, 422, "context.secrets.hunter2: expected string"],
    ["another major version", { envelope_version: "3.0" }, {}, 422, "speaks 2.0 and 1.0"],
    ["a body that is too large", { task_description: "x".repeat(12 * 1024 * 1024) }, {}, 413, "larger than"],
    ["no token", {}, { "aau-llm-token": "" }, 422, "aau-llm-token"],
    ["a broken time limit", {}, { "aau-time-left-ms": "tomorrow" }, 422, "aau-time-left-ms"],
    ["a third kind of models", {}, { "aau-models": "maybe" }, 422, "aau-models"],
  ])("refuses %s in the platform's error format", async (_what, body, headers, status, message) => {
    const url = await serving(() => "");
    const response = await executeRequest(url, body, { "aau-request-id": "req_1", ...headers });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({
      error: { code: status === 413 ? "PAYLOAD_TOO_LARGE" : "INVALID_INPUT", message: expect.stringContaining(message), request_id: "req_1" },
    });
  });

  it("refuses bytes that are not UTF-8, and a chunked body that grows too large", async () => {
    const url = await serving(() => "");
    const notUtf8 = await fetch(`${url}/execute`, {
      method: "POST",
      headers: HEADERS,
      body: Buffer.concat([Buffer.from('{"task_id":"'), Buffer.from([0xff]), Buffer.from('"}')]),
    });
    expect(notUtf8.status).toBe(422);
    const status = await new Promise<string>((resolve, reject) => {
      const socket = connect(Number(new URL(url).port), "127.0.0.1");
      const head = Object.entries({ host: "x", ...HEADERS, "transfer-encoding": "chunked" })
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join("");
      socket.write(`POST /execute HTTP/1.1\r\n${head}\r\n`);
      const chunk = `100000\r\n${"x".repeat(1024 * 1024)}\r\n`;
      for (let i = 0; i < 13; i++) socket.write(chunk);
      socket.once("data", (data) => resolve(data.toString().split("\r\n")[0] ?? ""));
      socket.once("error", reject);
    });
    expect(status).toBe("HTTP/1.1 413 Payload Too Large");
  });

  it("makes a request id of its own where none came, or one that could not be logged", async () => {
    const url = await serving(() => "");
    const response = await executeRequest(url, "{", { "aau-request-id": "a b" });
    expect(await response.json()).toMatchObject({ error: { request_id: expect.stringMatching(/^req_[\w-]{36}$/) } });
  });

  it("keeps prototype keys as data", async () => {
    const url = await serving((ctx) => `${Object.keys(ctx.config)} ${"admin" in ctx.config} ${"admin" in {}}`);
    const body = JSON.stringify(INPUT).replace('"user_id":null', '"user_id":null,"plugin_config":{"__proto__":{"admin":true},"constructor":{}}');
    expect(await (await executeRequest(url, body)).text()).toMatch(/"result":"(__proto__,)?(constructor)? ?false false"/);
  });
});

describe("what Knative and the platform ask", () => {
  it("shows the manifest, probes and metrics", async () => {
    const url = await serving(() => "");
    await (await executeRequest(url, {})).text();
    expect(await (await fetch(`${url}/manifest`)).json()).toMatchObject({ name: "under-test", timeout_seconds: 120 });
    expect((await fetch(`${url}/health/readiness`)).status).toBe(200);
    expect((await fetch(`${url}/health/liveness`)).status).toBe(200);
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "healthy", components: {}, message: null });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toContain('aau_plugin_executions_total{plugin="under-test",status="success"} 1\n');
    expect(metrics).toContain('aau_plugin_executions_in_flight{plugin="under-test"} 0\n');
    const lost = await fetch(`${url}/v1/tasks`);
    expect([lost.status, await lost.json()]).toMatchObject([404, { error: { code: "NOT_FOUND" } }]);
  });

  it.each<[string, () => never | Promise<never> | { status: "degraded"; components: Record<string, string> }, object]>([
    ["what the plugin says", () => ({ status: "degraded", components: { github_api: "degraded" } }), { status: "degraded", components: { github_api: "degraded" }, message: null }],
    [
      "a check that throws",
      () => {
        throw new Error("token hunter2");
      },
      { status: "unhealthy", components: {}, message: "The plugin's own health check failed." },
    ],
    ["a check that rejects", () => Promise.reject(new Error("no")), { status: "unhealthy", components: {}, message: "The plugin's own health check failed." }],
  ])("reports %s as its health", async (_what, health, body) => {
    const response = await fetch(`${await serving(() => "", { health })}/health`);
    expect([response.status, await response.json()]).toEqual([200, body]);
  });

  it("names the setting that is missing", async () => {
    await expect(
      serve(
        pluginOf(() => ""),
        { port: 0, scopeGatewayUrl: "http://x" },
      ),
    ).rejects.toThrow("LLM_GATEWAY_URL");
    await expect(
      serve(
        pluginOf(() => ""),
        { port: 99_999, ...NOWHERE },
      ),
    ).rejects.toThrow("PORT");
  });
});

describe("the log", () => {
  it("has the platform's fields, and nothing of the task", async () => {
    let written = "";
    const write = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      written += String(text);
      return true;
    });
    try {
      server = await serve(
        pluginOf(() => {
          throw new Error("CANARY\n    at CANARY (file.ts:1:1)");
        }),
        { port: 0, signals: false, ...NOWHERE },
      );
      await (await executeRequest(server.url, { task_description: "CANARY" })).text();
    } finally {
      write.mockRestore();
    }
    const logged = written
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const about = {
      timestamp: expect.stringMatching(/Z$/),
      service: "plugin-under-test",
      plugin_name: "under-test",
      task_id: "task_1",
      tenant_id: "ten_1",
      request_id: expect.any(String),
    };
    expect(logged).toMatchObject([
      { ...about, level: "info", node: "work", message: "Node failed", duration_ms: expect.any(Number) },
      {
        ...about,
        level: "error",
        message: "Execution finished",
        tokens_used: 0,
        error_type: "Error",
        frames: [expect.stringContaining("serve.test.ts"), ...Array(7).fill(expect.any(String))],
      },
    ]);
    expect(written).not.toContain("CANARY");
  });
});

describe("shutdown", () => {
  it("stops what outlives the plugin's time-out", async () => {
    const url = await serving(() => new Promise(() => {}), { timeoutSeconds: 1 });
    const response = await executeRequest(url, {});
    await server?.close();
    // The plugin's own time-out and the end of the drain come together; whichever is first.
    expect(await response.text()).toMatch(/"error_code":"PLUGIN_TIMEOUT"|"type":"stopped"/);
  });

  it("on SIGTERM finishes what runs, refuses what is new, and exits with 0", async () => {
    const asked = gate();
    const answer = gate();
    const platform = new PlatformStandIn(async () => {
      asked.open();
      await answer.opened;
      return "finished";
    });
    await platform.listen();
    platform.holders.set(HEADERS["aau-llm-token"], { tenantId: "ten_1", taskId: "task_1", plugin: "none", scopes: [], dependencies: [], knowledge: [], isOver: false });
    const env = { ...process.env, PORT: "0", LLM_GATEWAY_URL: platform.url, SCOPE_GATEWAY_URL: platform.url };
    const child = fork(new URL("./served-plugin.ts", import.meta.url), { execArgv: ["--import", "tsx"], env, stdio: ["ignore", "ignore", "inherit", "ipc"] });
    try {
      const [{ port }] = await once(child, "message");
      const url = `http://127.0.0.1:${port}`;
      const running = await executeRequest(url, {});
      await asked.opened;
      child.kill("SIGTERM");
      await vi.waitFor(async () => expect((await fetch(`${url}/health/readiness`)).status).toBe(503));
      const refused = await executeRequest(url, {});
      expect([refused.status, refused.headers.get("retry-after"), refused.headers.get("connection")]).toEqual([503, "1", "close"]);
      answer.open();
      expect(await running.text()).toContain('"result":"finished"');
      expect(await once(child, "exit")).toEqual([0, null]);
    } finally {
      child.kill("SIGKILL");
      await platform.close();
    }
  });
});
