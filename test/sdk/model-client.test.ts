import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it } from "vitest";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { readAnswer, readStream, type Seen } from "../../shared/sdk/src/usage-reader.ts";
import { ask, MANIFEST, pluginOf, succeed } from "./plugins.ts";

let harness: PluginHarness;
afterEach(() => harness.close());

/** Two branches of one node, which end in either order, and a node after them; all ask the same and something of their own. */
function fanOut(first: "a" | "b") {
  const State = Annotation.Root({ items: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });
  const order = new Map<string, () => void>();
  return definePlugin({
    ...MANIFEST,
    graph: new StateGraph(State)
      .addNode(
        "branch",
        node(async ({ item }: { item: string }, ctx) => {
          if (item !== first) await new Promise<void>((resolve) => order.set("first is done", resolve));
          await ask(ctx, "the same");
          await ask(ctx, item);
          await ask(ctx, "the same");
          order.get("first is done")?.();
          return { items: [item] };
        }),
      )
      .addNode(
        "after",
        node(async (_state: typeof State.State, ctx) => {
          await ask(ctx, "the same");
          return {};
        }),
      )
      .addConditionalEdges(START, () => ["a", "b"].map((item) => new Send("branch", { item })))
      .addEdge("branch", "after")
      .addEdge("after", END),
    start: () => ({}),
    finish: () => succeed("done"),
  });
}

describe("ctx.anthropic", () => {
  it("numbers equal calls of a node from 1, whichever parallel branch comes first", async () => {
    const keys: string[][] = [];
    for (const first of ["a", "b"] as const) {
      harness = new PluginHarness(fanOut(first), { model: () => "fine" });
      await harness.run({ task: "do" });
      keys.push(harness.lastRun.modelCalls.map(({ call }) => `${call.node} ${call.body.messages[0]?.content} ${call.occurrence}`).sort());
      await harness.close();
    }
    expect(keys[0]).toEqual(["after the same 1", "branch a 1", "branch b 1", "branch the same 1", "branch the same 2", "branch the same 3", "branch the same 4"]);
    expect(keys[1]).toEqual(keys[0]);
  });

  it("numbers from 1 again when the task is run again", async () => {
    harness = new PluginHarness(
      pluginOf((ctx) => ask(ctx, "the same")),
      { model: () => "fine" },
    );
    await harness.run({ task: "do", taskId: "task_1" });
    await harness.run({ task: "do", taskId: "task_1" });
    expect(harness.runs.flatMap(({ modelCalls }) => modelCalls.map(({ call }) => call.occurrence))).toEqual([1, 1]);
  });

  it("closes the open call at once when the platform hangs up, though the node passed no signal", async () => {
    harness = new PluginHarness(
      pluginOf((ctx) => ask(ctx, "anything")),
      {
        model: () => {
          hangUp.abort();
          return { fault: "hangs" };
        },
      },
    );
    const hangUp = new AbortController();
    await expect(harness.run({ task: "do", signal: hangUp.signal })).rejects.toThrow("abort");
    expect(await harness.lastRun.modelCalls[0]?.closed).toBe(true);
  });

  it("closes the calls of the other branches when one branch fails", async () => {
    const State = Annotation.Root({ done: Annotation<string> });
    let asked: () => void = () => {};
    const bothAsk = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const plugin = definePlugin({
      ...MANIFEST,
      graph: new StateGraph(State)
        .addNode(
          "asks",
          node(async (_: typeof State.State, ctx) => ({ done: await ask(ctx, "anything") })),
        )
        .addNode(
          "fails",
          node(async () => {
            await bothAsk;
            throw new RangeError("no");
          }),
        )
        .addEdge(START, "asks")
        .addEdge(START, "fails")
        .addEdge("asks", END)
        .addEdge("fails", END),
      start: () => ({}),
      finish: () => succeed("done"),
    });
    harness = new PluginHarness(plugin, {
      model: () => {
        asked();
        return { fault: "hangs" };
      },
    });
    expect(await harness.run({ task: "do" })).toMatchObject({ error: "The plugin failed in its node fails (RangeError)." });
    expect(await harness.lastRun.modelCalls[0]?.closed).toBe(true);
  });

  it("says up front that there is no model, and takes the offline answer at no cost", async () => {
    harness = new PluginHarness(pluginOf(async (ctx) => `${ctx.hasModel}: ${await ask(ctx, "First. Second! Third? Fourth.")}`));
    expect(await harness.run({ task: "do" })).toMatchObject({
      result: "false: First. Second! Third?",
      execution_meta: { model_used: "offline-extractive", tokens_used: 0 },
    });
  });
});

describe("reading usage", () => {
  const encoder = new TextEncoder();
  const stream = [
    'event: message_start\ndata: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}\n\n',
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\"message_delta 👋"}}\n\n',
    'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":30}}',
  ].join("");

  async function passThrough(bytes: Uint8Array, size: number): Promise<{ seen: Seen[]; out: string }> {
    const seen: Seen[] = [];
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size));
    const out = await new Response(ReadableStream.from(pieces).pipeThrough(readStream((one) => seen.push(one)))).text();
    return { seen, out };
  }

  it.each([1, 2, 7, 64, 10_000])("does not depend on where a stream is cut (%i bytes a piece)", async (size) => {
    const { seen, out } = await passThrough(encoder.encode(stream), size);
    expect(out).toBe(stream);
    expect(seen).toEqual([
      { tokens: 16, model: "m", refused: false, isCutOff: false },
      { tokens: 29, model: undefined, refused: true, isCutOff: false },
    ]);
  });

  it("passes over what is no usage", async () => {
    const odd = 'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":-5}}\ndata: {"message_\ndata: [DONE]\n';
    expect(await passThrough(encoder.encode(odd), 9)).toEqual({ seen: [], out: odd });
    expect(readAnswer("not JSON")).toBeNull();
    expect(readAnswer('{"usage":{"input_tokens":1e400}}')).toBeNull();
    expect(readAnswer('{"input_tokens":7}')).toEqual({ tokens: 0, model: undefined, refused: false, isCutOff: false });
  });
});
