import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import * as v from "valibot";
import { describe, expect, expectTypeOf, it, vi } from "vitest";
import { InputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { Stopped } from "../../shared/sdk/src/errors.ts";
import { Execution } from "../../shared/sdk/src/execution.ts";
import { guardedFetch } from "../../shared/sdk/src/guarded-fetch.ts";
import { definePlugin, type NodeContext, node, type PluginDefinition } from "../../shared/sdk/src/index.ts";
import { loadAnthropic } from "../../shared/sdk/src/metered-anthropic.ts";
import { EXECUTION_KEY } from "../../shared/sdk/src/node.ts";
import { INPUT } from "./execute-request.ts";
import { MANIFEST, pluginOf, succeed } from "./plugins.ts";

describe("definePlugin", () => {
  it("writes the manifest in snake_case, with its defaults", () => {
    const { manifest, name } = pluginOf(() => "", {
      requiredScopes: ["store:write", "secrets:github_token"],
      requiredSecretNames: ["github_token"],
      fallback: "other-plugin",
    });
    expect(name).toBe("under-test");
    expect(manifest).toEqual({
      name: "under-test",
      version: "1.0.0",
      description: "A plugin that a test makes up.",
      capabilities: ["be tested"],
      category: "testing",
      estimated_latency: "fast",
      dependencies: [],
      input_schema: {},
      envelope_version: "2.0",
      required_scopes: ["store:write", "secrets:github_token"],
      required_secret_names: ["github_token"],
      egress_hosts: [],
      model: "claude-sonnet-4-6",
      temperature: 0,
      max_retries: 2,
      timeout_seconds: 120,
      token_budget: 50_000,
      fallback: "other-plugin",
    });
  });

  it("describes the configuration as the tenant writes it", () => {
    const configSchema = v.object({ limit: v.optional(v.pipe(v.string(), v.regex(/^\d{1,3}$/), v.transform(Number)), "20"), tags: v.array(v.string()) });
    expect(pluginOf(() => "", { configSchema }).manifest.config_schema).toEqual({
      type: "object",
      properties: { limit: { type: "string", pattern: "^\\d{1,3}$", default: "20" }, tags: { type: "array", items: { type: "string" } } },
      required: ["tags"],
    });
  });

  it("refuses a configuration that refers to itself", () => {
    type Tree = { inner?: Tree };
    const configSchema: v.GenericSchema<Tree, Tree> = v.object({ inner: v.optional(v.lazy(() => configSchema)) });
    expect(() => pluginOf(() => "", { configSchema })).toThrow(/definePlugin: configSchema: config_schema.* holds \$/);
  });

  it.each<[string, object]>([
    ["name: a plugin's name is", { name: "соde-review" }],
    ["version: must be a semantic version", { version: "1" }],
    ["capabilities: Invalid length", { capabilities: [] }],
    ["capabilities[1]: Invalid type", { capabilities: ["fine", 7] }],
    ["estimatedLatency: Invalid type", { estimatedLatency: "soon" }],
    ["requiredScopes[0]: unknown scope", { requiredScopes: ["store:delete"] }],
    ["timeoutSeconds: Invalid value", { timeoutSeconds: 541 }],
    ["dependencies[0].name: a plugin's name", { dependencies: [{ name: "X", version: "^1.0.0" }] }],
    ["start: must be a function", { start: undefined }],
    ["graph: must be a LangGraph StateGraph", { graph: null }],
  ])("names the property that is wrong: %s", (message, wrong) => {
    expect(() => pluginOf(() => "", wrong)).toThrow(`definePlugin: ${message}`);
  });

  it("does not compile the graph", () => {
    const State = Annotation.Root({ answer: Annotation<string> });
    const unfinished = new StateGraph(State).addNode(
      "work",
      node(() => ({ answer: "" })),
    );
    expect(() => definePlugin({ ...MANIFEST, graph: unfinished, start: () => ({}), finish: () => succeed("") })).not.toThrow();
  });

  it("knows the state's type from the graph", () => {
    const State = Annotation.Root({ count: Annotation<number>, list: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });
    const graph = new StateGraph(State)
      .addNode(
        "inline",
        node((state: typeof State.State, ctx) => {
          expectTypeOf(ctx).toEqualTypeOf<NodeContext>();
          return { count: state.count + 1 };
        }),
      )
      .addEdge(START, "inline")
      .addEdge("inline", END);
    const plugin = definePlugin({
      ...MANIFEST,
      graph: graph.compile(),
      start: () => ({ count: 1 }),
      finish(state) {
        expectTypeOf(state.count).toEqualTypeOf<number>();
        return succeed(state.list.join());
      },
    });
    expectTypeOf(plugin.definition).toEqualTypeOf<PluginDefinition<typeof State.State>>();
    // @ts-expect-error the state of a graph is what its finish reads
    definePlugin({ ...MANIFEST, graph, start: () => ({}), finish: (state: { other: string }) => succeed(state.other) });
  });
});

describe("node", () => {
  it("says what is missing when the graph runs on its own", async () => {
    const State = Annotation.Root({ answer: Annotation<string> });
    const graph = new StateGraph(State)
      .addNode(
        "work",
        node(() => ({ answer: "" })),
      )
      .addEdge(START, "work")
      .addEdge("work", END)
      .compile();
    await expect(graph.invoke({})).rejects.toThrow("runs only inside an execution");
  });

  it("does not enter the function when the task is cancelled already", async () => {
    const entered = vi.fn(() => ({}));
    const plugin = pluginOf(() => "");
    const signal = AbortSignal.abort(new Stopped("gone", "cancelled"));
    const runtime = {
      llmGatewayUrl: "http://127.0.0.1:9",
      scopeGatewayUrl: "http://127.0.0.1:9",
      llmToken: "cap_llm",
      scopedToken: "cap_scoped",
      hasModel: false,
      timeLeftMs: null,
      signal,
      fetch: guardedFetch({ allowPrivate: false }),
      trace: {},
    };
    const execution = new Execution({
      manifest: plugin.manifest,
      input: v.parse(InputEnvelope, INPUT),
      secrets: {},
      config: {},
      onRefusal: "fail",
      runtime,
      anthropic: await loadAnthropic(),
      signal,
      deadlineAt: 0,
      emit: entered,
    });
    const config = { configurable: { [EXECUTION_KEY]: execution }, metadata: { langgraph_node: "work" }, signal };
    await expect(node(entered)({}, config)).rejects.toThrow("cancelled");
    expect(entered).not.toHaveBeenCalled();
  });
});
