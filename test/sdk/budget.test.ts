import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it } from "vitest";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { ask, MANIFEST, pluginOf, succeed, USAGE } from "./plugins.ts";

let harness: PluginHarness;
afterEach(() => harness.close());

const tokens = (count: number) => ({ text: "yes", usage: { input_tokens: count, output_tokens: 0 } });

/** Three nodes in a row, each of which asks once. */
function threeNodes(tokenBudget: number) {
  const State = Annotation.Root({ seen: Annotation<boolean[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });
  const step = node(async (_state: typeof State.State, ctx) => {
    await ask(ctx, "next");
    return { seen: [ctx.budget.exceeded] };
  });
  return definePlugin({
    ...MANIFEST,
    tokenBudget,
    graph: new StateGraph(State)
      .addNode("one", step)
      .addNode("two", step)
      .addNode("three", step)
      .addEdge(START, "one")
      .addEdge("one", "two")
      .addEdge("two", "three")
      .addEdge("three", END),
    start: () => ({}),
    finish: ({ seen }) => ({ ...succeed("done"), data: { seen } }),
  });
}

describe("the token budget", () => {
  it("counts input, output and both kinds of cache tokens of whole answers", async () => {
    harness = new PluginHarness(
      pluginOf(async (ctx) => (await ask(ctx, "a")) + (await ask(ctx, "b"))),
      { model: () => ({ text: "yes", usage: USAGE }) },
    );
    const output = await harness.run({ task: "count" });
    expect(output).toMatchObject({
      status: "success",
      result: "yesyes",
      execution_meta: { tokens_used: 8660, model_used: "claude-sonnet-4-6", budget_exceeded: false },
      warnings: [],
    });
  });

  it("counts a streamed answer the same, and leaves its text as it was", async () => {
    harness = new PluginHarness(
      pluginOf(async (ctx) => {
        const stream = ctx.anthropic.messages.stream({ model: ctx.model, max_tokens: 100, messages: [{ role: "user", content: "a" }] });
        return stream.finalText();
      }),
      { model: () => ({ text: "Grüße — 你好 👋 \u2028 end", usage: USAGE }) },
    );
    const output = await harness.run({ task: "count" });
    expect(output).toMatchObject({
      status: "success",
      result: "Grüße — 你好 👋 \u2028 end",
      execution_meta: { tokens_used: 4330, model_used: "claude-sonnet-4-6" },
    });
  });

  it("warns once from 80 % on, marks what goes over 100 %, and goes on", async () => {
    harness = new PluginHarness(threeNodes(100), { model: [tokens(80), tokens(5), tokens(16)] });
    const output = await harness.run({ task: "spend" });
    expect(output).toMatchObject({ status: "success", data: { seen: [false, false, true] }, execution_meta: { tokens_used: 101, budget_exceeded: true } });
    expect(output.warnings.map(({ code }) => code)).toEqual(["TOKEN_BUDGET_NEAR_LIMIT", "TOKEN_BUDGET_EXCEEDED"]);
    expect(harness.lastRun.events.filter(({ type }) => type === "warning")).toHaveLength(2);
    expect(() => harness.assertTokensWithinBudget()).toThrow("used 101 tokens of a budget of 100");
  });

  it("takes a budget that is just used up for kept", async () => {
    harness = new PluginHarness(threeNodes(100), { model: [tokens(0), tokens(0), tokens(100)] });
    expect((await harness.run({ task: "spend" })).execution_meta.budget_exceeded).toBe(false);
    harness.assertTokensWithinBudget();
  });
});
