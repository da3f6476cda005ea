import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it } from "vitest";
import { ChainFailed, definePlugin, type NodeContext, node } from "../../shared/sdk/src/index.ts";
import { type HarnessOptions, PluginHarness } from "../../shared/sdk/src/testing/index.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
type Work = (ctx: NodeContext, command: string) => Promise<string>;

const pluginThat = (work: Work, requiredScopes: readonly string[] = ["plugin:chain", "knowledge:read", "knowledge:write"]) =>
  definePlugin({
    name: "parent-plugin",
    version: "1.0.0",
    description: "Has others do its work, for tests.",
    capabilities: ["Have the work done by somebody else."],
    category: "testing",
    estimatedLatency: "medium",
    requiredScopes,
    dependencies: [{ name: "helper-plugin", version: "^1.0.0" }],
    start: (input) => ({ command: input.task_description }),
    finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 0.9 }),
    graph: new StateGraph(State)
      .addNode(
        "work",
        node(async ({ command }: typeof State.State, ctx) => ({ text: await work(ctx, command) })),
      )
      .addEdge(START, "work")
      .addEdge("work", END),
  });

let harness: PluginHarness | undefined;
afterEach(() => harness?.close());
const harnessOf = (work: Work, options: HarnessOptions = {}, scopes?: readonly string[]) => {
  harness = new PluginHarness(pluginThat(work, scopes), options);
  return harness;
};

describe("ctx.chain", () => {
  it("has another plugin do the work, gets its result as data, and counts its tokens", async () => {
    const one = harnessOf(
      async (ctx) => {
        const answer = await ctx.chain("helper-plugin", { command: "Count the words.", attachments: [{ name: "a.txt", media_type: "text/plain", content: "a b" }] });
        return `${answer.status} ${answer.data?.words} ${ctx.budget.used} ${answer.asData()}`;
      },
      { chain: ({ plugin, command, attachments }) => ({ result: `${plugin}: ${command} ${attachments[0]?.content}`, data: { words: 2 }, tokens_used: 42, status: "partial" }) },
    );
    const { result, execution_meta } = await one.run({ task: "x" });
    expect(result).toMatch(/^partial 2 42 <data-[0-9a-f]{24}>\nhelper-plugin: Count the words\. a b\n<\/data-/);
    expect(execution_meta.tokens_used).toBe(42);
    expect(one.calls.map(({ kind, path }) => [kind, path])).toEqual([["chain", "/internal/chain/helper-plugin"]]);
    one.assertNoCrossTenantCalls();
  });

  it("says how often the same was asked, so that a later attempt finds each answer", async () => {
    const one = harnessOf(
      async (ctx) => {
        const ask = (command: string) => ctx.chain("helper-plugin", { command });
        const answers = [await ask("a"), await ask("b"), await ask("a")];
        return answers.map(({ result }) => result).join(" ");
      },
      { chain: ({ command, occurrence }) => `${command}${occurrence}` },
    );
    expect((await one.run({ task: "x" })).result).toBe("a1 b1 a2");
  });

  it.each([
    [{ failed: { code: "INTERNAL", cause: "plugin" } } as const, { error_code: "DEPENDENCY_FAILED", error_cause: "upstream" }],
    [{ failed: { code: "PLUGIN_UNAVAILABLE", cause: "platform" } } as const, { error_code: "PLUGIN_UNAVAILABLE", error_cause: "platform" }],
    [{ failed: { code: "INVALID_INPUT", message: "Attach a file.", cause: "caller" } } as const, { error_code: "INVALID_INPUT", error_cause: "caller", error: "Attach a file." }],
  ])("ends the task as the other's failure %j says, unless the plugin goes on without", async (answer, expected) => {
    const one = harnessOf(
      async (ctx, command) => {
        try {
          return (await ctx.chain("helper-plugin", { command: "x" })).result;
        } catch (error) {
          if (command !== "go on" || !(error instanceof ChainFailed)) throw error;
          return `without ${error.code}`;
        }
      },
      { chain: () => answer },
    );
    expect(await one.run({ task: "stop" })).toMatchObject({ status: "failed", ...expected });
    expect(await one.run({ task: "go on" })).toMatchObject({ status: "success", result: `without ${answer.failed.code}` });
  });

  it("is refused without the scope, for a plugin that is no dependency, and where the tenant has no subscription", async () => {
    const ask = (plugin: string) => async (ctx: NodeContext) => (await ctx.chain(plugin, { command: "x" })).result;
    const noScope = harnessOf(ask("helper-plugin"), { chain: () => "x" }, []);
    expect(await noScope.run({ task: "x" })).toMatchObject({ status: "failed", error_code: "INTERNAL" });
    expect(noScope.calls).toEqual([]);
    await noScope.close();
    const stranger = harnessOf(ask("other-plugin"), { chain: () => "x" });
    expect(await stranger.run({ task: "x" })).toMatchObject({ status: "failed", error_cause: "upstream" });
    await stranger.close();
    const none = harnessOf(ask("helper-plugin"));
    expect(await none.run({ task: "x" })).toMatchObject({ status: "failed", error_code: "PLUGIN_NOT_SUBSCRIBED", error_cause: "caller" });
  });
});

describe("ctx.knowledge", () => {
  it("finds passages and quotes them, and adds documents once", async () => {
    const one = harnessOf(async (ctx) => {
      const found = await ctx.knowledge.search("holidays", 1);
      const added = [await ctx.knowledge.add({ content: "# New" }), await ctx.knowledge.add({ content: "# New" })];
      return `${found.passages.length} ${new Set(added.map(({ document_id }) => document_id)).size} ${found.asPrompt()}`;
    });
    const knowledge = [1, 2].map((n) => ({ content: `Passage ${n}`, source_url: "https://x.example", similarity: 0.9 }));
    const { result } = await one.run({ task: "x", knowledge });
    expect(result).toMatch(/^1 1 Passages from documents/);
    expect(result).toContain("Passage 1");
    expect(one.documents().map(({ content }) => content)).toEqual(["# New"]);
    expect(one.documents("test-tenant-2")).toEqual([]);
  });

  it("is refused without its scopes, and for what is no question", async () => {
    for (const work of [(ctx: NodeContext) => ctx.knowledge.search("x"), (ctx: NodeContext) => ctx.knowledge.add({ content: "x" })]) {
      const one = harnessOf(async (ctx) => String(await work(ctx)), {}, []);
      await one.run({ task: "x" });
      expect(String(one.lastRun.thrown)).toContain("does not declare the scope");
      expect(one.calls).toEqual([]);
      await one.close();
    }
    const odd = harnessOf(async (ctx) => String(await ctx.knowledge.search("", 1)));
    await odd.run({ task: "x" });
    expect(odd.lastRun.thrown).toBeInstanceOf(TypeError);
  });

  it("shows a plugin that keeps a context from one tenant to the next", async () => {
    let kept: NodeContext | undefined;
    const one = harnessOf(async (ctx) => {
      kept ??= ctx;
      await kept.knowledge.search("whose documents?");
      return "done";
    });
    await one.run({ task: "the first tenant's question", tenantId: "test-tenant-1" });
    await one.run({ task: "the second tenant's question", tenantId: "test-tenant-2" });
    expect(() => one.assertNoCrossTenantCalls()).toThrow("after its task was over");
  });
});
