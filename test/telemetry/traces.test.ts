import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { definePlugin, type NodeContext, node } from "../../shared/sdk/src/index.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker } from "../support/plugins.ts";

const Attribute = v.object({ key: v.string(), value: v.record(v.string(), v.unknown()) });
const SpanJson = v.object({
  traceId: v.string(),
  spanId: v.string(),
  parentSpanId: v.optional(v.string(), ""),
  name: v.string(),
  kind: v.number(),
  attributes: v.array(Attribute),
});
const Export = v.object({
  resourceSpans: v.array(v.object({ resource: v.object({ attributes: v.array(Attribute) }), scopeSpans: v.array(v.object({ spans: v.array(SpanJson) })) })),
});
type Span = v.InferOutput<typeof SpanJson>;

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
/** Has another plugin ask. */
const opener = definePlugin({
  name: "opener",
  version: "1.0.0",
  description: "Passes a question on, for tests.",
  capabilities: ["Pass a question on."],
  category: "testing",
  estimatedLatency: "medium",
  requiredScopes: ["plugin:chain"],
  dependencies: [{ name: "asker", version: "^1.0.0" }],
  start: (input) => ({ command: input.task_description }),
  finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 0.9 }),
  graph: new StateGraph(State)
    .addNode(
      "pass",
      node(async ({ command }: typeof State.State, ctx: NodeContext) => ({ text: (await ctx.chain("asker", { command })).result })),
    )
    .addEdge(START, "pass")
    .addEdge("pass", END),
});

/** A collector that keeps what it is sent. */
function startCollector() {
  const spans: Span[] = [];
  const headers: Record<string, unknown>[] = [];
  let raw = "";
  const server: Server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    raw += text;
    headers.push(request.headers);
    if (request.url === "/v1/traces") for (const { scopeSpans } of v.parse(Export, JSON.parse(text)).resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans);
    response.writeHead(200, { "content-type": "application/json" }).end("{}");
  });
  return {
    spans,
    headers,
    raw: () => raw,
    listen: () => new Promise<string>((resolve) => server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))),
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

describe("traces", () => {
  const collector = startCollector();
  let platform: TestPlatform;
  let tenant: TestTenant;
  const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
  const CALLER = "00f067aa0ba902b7";
  const CHAINED = "6bf92f3577b34da6a3ce929d0e0e4736";
  const UNSAMPLED = "5bf92f3577b34da6a3ce929d0e0e4736";

  beforeAll(async () => {
    const endpoint = await collector.listen();
    platform = await startTestPlatform({ plugins: [asker, opener], env: { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_HEADERS: "x-team=a%20b" } });
    tenant = await platform.tenant();
    for (const [trace, flags, plugin] of [
      [TRACE, "01", "asker"],
      [CHAINED, "01", "opener"],
      [UNSAMPLED, "00", "asker"],
    ]) {
      const headers = { prefer: "wait=25", traceparent: `00-${trace}-${CALLER}-${flags}` };
      const answer = await tenant.api("POST", "/v1/tasks", { command: "Ask what the marmot-marker does", plugin }, headers);
      expect(answer.body.status).toBe("success");
    }
    // Whoever stops sends what is left.
    await platform.stop();
  });
  afterAll(() => collector.close());

  const ofTrace = (trace = TRACE) => collector.spans.filter(({ traceId }) => traceId === trace);
  const attribute = (span: Span | undefined, key: string) => Object.values(span?.attributes.find((a) => a.key === key)?.value ?? {})[0];

  /** The names of the spans from the caller's to the model call. */
  function wayOf(trace: string): string[] {
    const spans = ofTrace(trace);
    const way: string[] = [];
    let at = spans.find(({ name }) => name.startsWith("chat "));
    while (at) {
      way.unshift(at.name);
      const { parentSpanId } = at;
      at = spans.find(({ spanId }) => spanId === parentSpanId);
      if (!at) expect(parentSpanId).toBe(CALLER);
    }
    return way;
  }
  const TO_THE_PLUGIN = ["POST /v1/tasks", "deliver stream:tasks:asker", "task-execute", "execute asker"];
  const TO_THE_MODEL = ["POST /internal/llm/v1/messages", "chat offline-extractive"];

  it("lead from the caller through the stream, the bridge and the plugin to the model call", () => {
    expect(wayOf(TRACE)).toEqual([...TO_THE_PLUGIN, ...TO_THE_MODEL]);
  });

  it("lead through the plugin that asks another one", () => {
    expect(wayOf(CHAINED)).toEqual([...TO_THE_PLUGIN.map((name) => name.replace("asker", "opener")), "POST /internal/chain/{plugin}", "execute asker", ...TO_THE_MODEL]);
  });

  it("show each node of the graph within the plugin's call", () => {
    const call = ofTrace().find(({ name }) => name === "execute asker");
    expect(ofTrace().find(({ name }) => name === "node ask")?.parentSpanId).toBe(call?.spanId);
  });

  it("name the task on every span that knows it, and no word of the command", () => {
    const ids = ofTrace().map((span) => attribute(span, "aau.task_id"));
    expect(new Set(ids.filter((id) => id !== undefined)).size).toBe(1);
    expect(ids.filter((id) => id !== undefined).length).toBeGreaterThanOrEqual(4);
    expect(collector.raw()).not.toContain("marmot-marker");
    expect(collector.raw()).not.toContain(tenant.key);
  });

  it("are not sent for a trace that the caller does not sample", () => {
    expect(collector.spans.filter(({ traceId }) => traceId === UNSAMPLED)).toEqual([]);
  });

  it("carry the collector's headers", () => expect(collector.headers[0]).toMatchObject({ "x-team": "a b" }));
});
