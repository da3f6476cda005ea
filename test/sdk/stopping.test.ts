import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it } from "vitest";
import { definePlugin, type NodeContext, node, type PluginDefinition } from "../../shared/sdk/src/index.ts";
import { type PluginServer, serve } from "../../shared/sdk/src/serve.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { executeRequest } from "./execute-request.ts";
import { ask, MANIFEST, succeed } from "./plugins.ts";

const State = Annotation.Root({ rooms: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });
type Held = typeof State.State;

/** Three nodes one after another, each of which does the same work. */
function threeRooms(work: (ctx: NodeContext, room: string) => unknown, more: Partial<PluginDefinition<Held>> = {}) {
  const room = (name: string) =>
    node(async (_: Held, ctx) => {
      await work(ctx, name);
      return { rooms: [name] };
    });
  return definePlugin({
    ...MANIFEST,
    graph: new StateGraph(State)
      .addNode("one", room("one"))
      .addNode("two", room("two"))
      .addNode("three", room("three"))
      .addEdge(START, "one")
      .addEdge("one", "two")
      .addEdge("two", "three")
      .addEdge("three", END),
    start: () => ({}),
    finish: ({ rooms }) => succeed(rooms.join()),
    ...more,
  });
}

let server: PluginServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});
const serving = async (plugin: ReturnType<typeof threeRooms>) => {
  server = await serve(plugin, { port: 0, signals: false, llmGatewayUrl: "http://x", scopeGatewayUrl: "http://x", log: () => {} });
  return server;
};
const linesOf = async (response: Response) =>
  (await response.text())
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
const outline = (lines: { type: string; node?: string }[]) => lines.map(({ type, node: name }) => (name ? `${type} ${name}` : type));

describe("a process that has to go", () => {
  it("finishes the node that runs, begins no other, and hands the task back", async () => {
    let closing: Promise<void> | undefined;
    const { url, close } = await serving(
      threeRooms((_, room) => {
        if (room === "two") closing = close();
      }),
    );
    const lines = await linesOf(await executeRequest(url, {}));
    expect(outline(lines)).toEqual(["node_started one", "node_finished one", "node_started two", "node_finished two", "stopped"]);
    await closing;
  });

  it("gives the result when the last node was under way", async () => {
    const { url, close } = await serving(
      threeRooms((_, room) => {
        if (room === "three") void close();
      }),
    );
    const lines = await linesOf(await executeRequest(url, {}));
    expect(lines.at(-1)).toMatchObject({ type: "output", envelope: { status: "success", result: "one,two,three" } });
  });

  it("hands the task back also when a node outlives the plugin's time-out", async () => {
    const { url, close } = await serving(
      threeRooms((ctx) => new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason))), { timeoutSeconds: 1 }),
    );
    const running = executeRequest(url, { context: { tenant_id: "ten_1", user_id: null } });
    const response = await running;
    await close();
    // The drain and the plugin's own time-out end in the same moment.
    expect((await linesOf(response)).at(-1)).toMatchObject({ type: expect.stringMatching(/^(stopped|output)$/) });
  });
});

describe("a platform whose own time ends", () => {
  it.each([
    ["ahead", "output", 60_000],
    ["over", "stopped", 0],
  ])("names the time: with one that is %s, the answer ends with %s", async (_, last, fromNowMs) => {
    const { url } = await serving(threeRooms(() => {}));
    const response = await executeRequest(url, {}, { "aau-stop-in-ms": String(fromNowMs) });
    expect((await linesOf(response)).at(-1)).toMatchObject({ type: last });
  });

  it("has the node that runs then as the last", async () => {
    const { url } = await serving(threeRooms((_, room) => (room === "one" ? new Promise((resolve) => setTimeout(resolve, 350)) : undefined)));
    const lines = await linesOf(await executeRequest(url, {}, { "aau-stop-in-ms": "300" }));
    expect(outline(lines)).toEqual(["node_started one", "node_finished one", "stopped"]);
  });
});

describe("a task that may not spend more", () => {
  const spent = { error: { status: 403, type: "permission_error", errorCode: "TOKEN_BUDGET_EXCEEDED" } };
  const asking = (more: Partial<PluginDefinition<Held>> = {}) => threeRooms((ctx, room) => ask(ctx, room), more);
  const stopAtThird = () => {
    let calls = 0;
    return () => (++calls < 3 ? { text: "yes" } : spent);
  };

  it("fails, clearly", async () => {
    await using harness = new PluginHarness(asking(), { model: stopAtThird() });
    expect(await harness.run({ task: "do" })).toMatchObject({
      status: "failed",
      error_code: "TOKEN_BUDGET_EXCEEDED",
      error_cause: "caller",
      error: "The task reached the most that it may spend, and was stopped.",
    });
  });

  it("is partial when the plugin can finish with what the nodes before have done", async () => {
    const plugin = asking({ finishEarly: ({ rooms }) => ({ result: `only ${rooms.join()}`, confidence: 0.4 }) });
    await using harness = new PluginHarness(plugin, { model: stopAtThird() });
    expect(await harness.run({ task: "do" })).toMatchObject({
      status: "partial",
      result: "only one,two",
      confidence: 0.4,
      error: null,
      warnings: [{ code: "TOKEN_BUDGET_EXCEEDED", message: "The task reached the most that it may spend, and was stopped." }],
    });
  });

  it.each<[string, PluginDefinition<Held>["finishEarly"], string]>([
    ["has nothing to give", () => null, "TOKEN_BUDGET_EXCEEDED"],
    [
      "throws",
      () => {
        throw new Error("no");
      },
      "INTERNAL",
    ],
    ["gives what is no result", () => ({ result: "x", confidence: 7 }), "INTERNAL"],
  ])("fails when finishing early %s", async (_, finishEarly, error_code) => {
    await using harness = new PluginHarness(asking({ finishEarly }), { model: stopAtThird() });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code });
  });

  it("does not finish early for any other failure", async () => {
    await using harness = new PluginHarness(asking({ finishEarly: () => ({ result: "x", confidence: 1 }) }), {
      model: () => ({ error: { status: 529, type: "overloaded_error" } }),
    });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", error_code: "PLUGIN_UNAVAILABLE" });
  });
});
