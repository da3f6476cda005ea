import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { ExecutionEvent } from "../../shared/sdk/src/envelopes.ts";
import { Stopped } from "../../shared/sdk/src/errors.ts";
import { execute } from "../../shared/sdk/src/execute.ts";
import { toFailure } from "../../shared/sdk/src/failure.ts";
import { guardedFetch } from "../../shared/sdk/src/guarded-fetch.ts";
import { CallerMistake, definePlugin, GatewayError, node, type PluginResult } from "../../shared/sdk/src/index.ts";
import { loadAnthropic } from "../../shared/sdk/src/metered-anthropic.ts";
import { type ModelAnswer, PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { ask, MANIFEST, pluginOf, succeed } from "./plugins.ts";

let harness: PluginHarness;
afterEach(async () => {
  harness.assertOutputSchemaValid();
  await harness.close();
});

/** Two branches at once, each of which does what its item says. */
function branches(work: (item: string) => Promise<string>) {
  const State = Annotation.Root({ done: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });
  return definePlugin({
    ...MANIFEST,
    graph: new StateGraph(State)
      .addNode(
        "branch",
        node(async ({ item }: { item: string }) => ({ done: [await work(item)] })),
      )
      .addConditionalEdges(START, () => ["a", "b"].map((item) => new Send("branch", { item })))
      .addEdge("branch", END),
    start: () => ({}),
    finish: ({ done }) => succeed(done.join()),
  });
}

const NO_GATEWAYS = {
  llmGatewayUrl: "http://127.0.0.1:9",
  scopeGatewayUrl: "http://127.0.0.1:9",
  llmToken: "cap_llm",
  scopedToken: "cap_scoped",
  hasModel: false,
  fetch: guardedFetch({ allowPrivate: false }),
  timeLeftMs: null,
  trace: {},
};

const failing = (answer: ModelAnswer) =>
  new PluginHarness(
    pluginOf((ctx, task) => ask(ctx, task)),
    { model: () => answer },
  );

describe("an execution's end", () => {
  it("is what finish says, with the SDK's own numbers", async () => {
    harness = new PluginHarness(pluginOf(() => "x", { finish: () => ({ status: "partial", result: "half", data: { rows: [1] }, confidence: 0.4, nextSteps: ["set a key"] }) }));
    const output = await harness.run({ task: "do", taskId: "task_1" });
    expect(output).toMatchObject({
      task_id: "task_1",
      envelope_version: "1.0",
      status: "partial",
      result: "half",
      data: { rows: [1] },
      confidence: 0.4,
      next_steps: ["set a key"],
      error: null,
    });
    expect(output.execution_meta).toMatchObject({ agents_invoked: 1, tokens_used: 0, model_used: null });
  });

  it.each([
    [
      "start",
      {
        start: () => {
          throw new CallerMistake("Send a diff.");
        },
      },
    ],
    [
      "finish",
      {
        finish: () => {
          throw new CallerMistake("Send a diff.");
        },
      },
    ],
  ])("is the caller's mistake when %s says so, in the plugin's words", async (_where, more) => {
    harness = new PluginHarness(pluginOf(() => "x", more));
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error: "Send a diff.", error_code: "INVALID_INPUT", error_cause: "caller" });
  });

  it("is the caller's mistake when a node says so, also as the cause of another error", async () => {
    harness = new PluginHarness(
      pluginOf(() => {
        throw new Error("wrapped", { cause: new CallerMistake("Send a diff.") });
      }),
    );
    expect(await harness.run({ task: "do" })).toMatchObject({ error: "Send a diff.", error_code: "INVALID_INPUT", error_cause: "caller" });
  });

  it.each([429, 500, 503, 529, 408, 401])("is upstream's fault when the model answers %i", async (status) => {
    harness = failing({ error: { status, type: "some_error" } });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code: "PLUGIN_UNAVAILABLE", error_cause: "upstream" });
    expect(harness.lastRun.modelCalls).toHaveLength(1);
  });

  it("is the platform's fault when the gateway's answer breaks off", async () => {
    harness = failing({ fault: "breaks_off" });
    expect(await harness.run({ task: "do" })).toMatchObject({ error_code: "PLUGIN_UNAVAILABLE", error_cause: "platform" });
  });

  it("is the plugin's fault when the model refuses the request's form", async () => {
    harness = failing({ error: { status: 400, type: "invalid_request_error", message: "max_tokens: required" } });
    expect(await harness.run({ task: "do" })).toMatchObject({ error_code: "INTERNAL", error_cause: "plugin" });
  });

  it.each([
    [{ status: 402, type: "billing_error" }, "TOKEN_BUDGET_EXCEEDED"],
    [{ status: 403, type: "permission_error", errorCode: "TOKEN_BUDGET_EXCEEDED" }, "TOKEN_BUDGET_EXCEEDED"],
    [{ status: 400, type: "invalid_request_error", errorCode: "CONTENT_POLICY_VIOLATION" }, "CONTENT_POLICY_VIOLATION"],
    [{ status: 400, type: "invalid_request_error", message: "prompt is too long: 210000 tokens > 200000 maximum" }, "CONTEXT_WINDOW_OVERFLOW"],
    [{ status: 413, type: "request_too_large" }, "CONTEXT_WINDOW_OVERFLOW"],
  ])("tells the gateway's %o apart as %s", async (error, code) => {
    harness = failing({ error });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code: code, error_cause: "caller" });
  });

  it("is a violation of policy when the model refused, though the node took the answer", async () => {
    harness = failing({ text: "", stopReason: "refusal" });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code: "CONTENT_POLICY_VIOLATION", error_cause: "caller" });
  });

  it("is a violation of policy when a node trips over the empty answer of a refusal", async () => {
    harness = new PluginHarness(
      pluginOf(async (ctx, task) => JSON.parse(await ask(ctx, task))),
      { model: () => ({ stopReason: "refusal" }) },
    );
    expect(await harness.run({ task: "do" })).toMatchObject({ error_code: "CONTENT_POLICY_VIOLATION", error_cause: "caller" });
  });

  it("leaves a refusal to the plugin that asks for it, with a warning", async () => {
    harness = new PluginHarness(
      pluginOf(async (ctx, task) => (await ask(ctx, task)) || "no model", { onRefusal: "continue" }),
      { model: () => ({ stopReason: "refusal" }) },
    );
    const output = await harness.run({ task: "do" });
    expect(output).toMatchObject({ status: "success", result: "no model", warnings: [{ code: "CONTENT_POLICY_REFUSAL" }] });
  });

  it("is the plugin's fault for anything else, names the node, and repeats nothing of the error", async () => {
    harness = new PluginHarness(
      pluginOf(() => {
        throw new TypeError("the document says: hunter2");
      }),
    );
    const output = await harness.run({ task: "do" });
    expect(output).toMatchObject({ status: "failed", error_code: "INTERNAL", error_cause: "plugin", error: "The plugin failed in its node work (TypeError)." });
    expect(harness.lastRun.thrown).toMatchObject({ message: "the document says: hunter2" });
    expect(JSON.stringify([harness.lastRun.events, harness.logs])).not.toContain("hunter2");
  });

  it("says of a graph without an end that it has none", async () => {
    const State = Annotation.Root({ n: Annotation<number> });
    const graph = new StateGraph(State)
      .addNode(
        "again",
        node((state: typeof State.State) => ({ n: state.n + 1 })),
      )
      .addEdge(START, "again")
      .addEdge("again", "again");
    harness = new PluginHarness(definePlugin({ ...MANIFEST, graph, start: () => ({ n: 0 }), finish: () => succeed("never") }));
    expect(await harness.run({ task: "do" })).toMatchObject({ error: "The plugin's graph went round without coming to an end.", error_cause: "plugin" });
  });

  it("looks into the errors of parallel branches for the one that says what to do", async () => {
    let open: () => void = () => {};
    const both = new Promise<void>((resolve) => {
      open = resolve;
    });
    harness = new PluginHarness(
      branches(async (item) => {
        if (item === "b") open();
        await both;
        throw item === "a" ? new GatewayError("away", 503) : new CallerMistake("Send a diff.");
      }),
    );
    expect(await harness.run({ task: "do" })).toMatchObject({ error: "Send a diff.", error_code: "INVALID_INPUT" });
    expect(harness.lastRun.thrown).toBeInstanceOf(AggregateError);
  });
});

describe("a result that finish may not return", () => {
  it.each<[string, object]>([
    ["confidence", { confidence: Number.NaN }],
    ["confidence", { confidence: Number.POSITIVE_INFINITY }],
    ["confidence", { confidence: 1.01 }],
    ["status", { status: "great" }],
    ["result", { result: undefined }],
    ["data", { data: { big: 1n } }],
    ["next_steps", { nextSteps: Array(51).fill("x") }],
    ["allowed", { result: "x".repeat(4 * 1024 * 1024) }],
  ])("is the plugin's fault, and the message names %s", async (field, wrong) => {
    harness = new PluginHarness(pluginOf(() => "x", { finish: () => Object.assign(succeed("fine"), wrong) satisfies PluginResult }));
    const output = await harness.run({ task: "do" });
    expect(output).toMatchObject({
      status: "failed",
      result: "",
      confidence: 0,
      error_code: "INTERNAL",
      error_cause: "plugin",
      error: expect.stringContaining(field),
    });
  });

  it("keeps a result with characters that a database refuses, without these", async () => {
    harness = new PluginHarness(pluginOf(() => "a\0b\ud800c \\u0000"));
    expect((await harness.run({ task: "do" })).result).toBe("a\uFFFDb\uFFFDc \\u0000");
  });
});

describe("time", () => {
  /** Never resolves, and does not listen to its signal. */
  const deaf = () => new Promise<string>(() => {});

  it("is up at the plugin's time-out, even for a node that ignores its signal", async () => {
    harness = new PluginHarness(pluginOf(deaf, { timeoutSeconds: 1 }));
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code: "PLUGIN_TIMEOUT", error_cause: "plugin" });
  });

  it("is the caller's affair when the deadline left less than the plugin may take", async () => {
    harness = new PluginHarness(pluginOf(deaf, { timeoutSeconds: 60 }));
    const output = await harness.run({ task: "do", deadline: new Date(Date.now() - 1000) });
    expect(output).toMatchObject({ error_code: "PLUGIN_TIMEOUT", error_cause: "caller" });
  });

  it("is up for a branch that ignores its signal while another one has ended", async () => {
    harness = new PluginHarness(branches((item) => (item === "a" ? Promise.resolve("a") : deaf())));
    const output = await harness.run({ task: "do", deadline: new Date(Date.now() + 300) });
    expect(output).toMatchObject({ error_code: "PLUGIN_TIMEOUT" });
  });

  it("being up, no further node starts, and what a late node says is not heard", async () => {
    let endLate: () => void = () => {};
    const late = new Promise<void>((resolve) => {
      endLate = resolve;
    });
    const entered: string[] = [];
    const State = Annotation.Root({ n: Annotation<number> });
    const plugin = definePlugin({
      ...MANIFEST,
      graph: new StateGraph(State)
        .addNode(
          "first",
          node(async (_: typeof State.State, ctx) => {
            entered.push("first");
            await late;
            ctx.report("late");
            return {};
          }),
        )
        .addNode(
          "second",
          node(() => {
            entered.push("second");
            return {};
          }),
        )
        .addEdge(START, "first")
        .addEdge("first", "second")
        .addEdge("second", END),
      start: () => ({}),
      finish: () => succeed("done"),
    });
    harness = new PluginHarness(plugin);
    await harness.run({ task: "do", deadline: new Date(Date.now() + 200) });
    const events: ExecutionEvent[] = [];
    const stop = new AbortController();
    const running = execute(plugin, harness.lastRun.input, { ...NO_GATEWAYS, signal: stop.signal }, (event) => events.push(event));
    await vi.waitFor(() => expect(entered).toEqual(["first", "first"]));
    stop.abort(new Stopped("gone", "the platform hung up"));
    await running;
    endLate();
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(entered).toEqual(["first", "first"]);
    expect(events).toEqual([{ type: "node_started", node: "first" }]);
  });

  it("being up explains what was thrown because of it", async () => {
    const anthropic = await loadAnthropic();
    const closed = new anthropic.APIConnectionError({ message: "the call was closed" });
    const signal = AbortSignal.abort(new Stopped("time_limit", "the time-out passed"));
    expect(toFailure(closed, { anthropic, signal, refused: false, node: "work" })).toMatchObject({ error_code: "PLUGIN_TIMEOUT", error_cause: "plugin" });
  });
});
