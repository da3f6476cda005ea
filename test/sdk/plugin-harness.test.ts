import { afterEach, describe, expect, it } from "vitest";
import type { NodeContext } from "../../shared/sdk/src/index.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { ask, pluginOf } from "./plugins.ts";

let harness: PluginHarness;
afterEach(() => harness.close());

const A = { task: "the secret plans of the first", tenantId: "test-tenant-1", secrets: { api_token: "token-of-the-first" } };
const B = { task: "the secret plans of the second", tenantId: "test-tenant-2", secrets: { api_token: "token-of-the-second" } };
const SECRET = { requiredSecretNames: ["api_token"], requiredScopes: ["store:write", "store:read"] };

/** Runs both at once: neither gets its first answer before the other one has asked too. */
async function together(work: (ctx: NodeContext, task: string) => Promise<string>): Promise<void> {
  let waiting = 0;
  let open: () => void = () => {};
  const both = new Promise<void>((resolve) => {
    open = resolve;
  });
  harness = new PluginHarness(pluginOf(work, SECRET), {
    model: async () => {
      if (++waiting === 2) open();
      await both;
      return "answer";
    },
  });
  await Promise.all([harness.run(A), harness.run(B)]);
}

describe("PluginHarness", () => {
  it("lets a plugin pass that keeps two tenants apart while both run", async () => {
    await together(async (ctx, task) => {
      const answer = await ask(ctx, `${task} for ${ctx.input.context.tenant_id}`);
      await ctx.artifacts.put({ name: "result.txt", mediaType: "text/plain", content: `${task} ${ctx.secret("api_token")?.reveal()}` });
      return answer;
    });
    harness.assertNoCrossTenantCalls();
    harness.assertOutputSchemaValid();
    expect(
      harness.runs.map(({ input, modelCalls, artifacts }) => [input.context.tenant_id, modelCalls.length, Buffer.from(artifacts.get("result.txt")?.content ?? []).toString()]),
    ).toEqual([
      ["test-tenant-1", 1, "the secret plans of the first token-of-the-first"],
      ["test-tenant-2", 1, "the secret plans of the second token-of-the-second"],
    ]);
  });

  it("catches a client that is kept from one execution to the next", async () => {
    let kept: NodeContext["anthropic"] | undefined;
    harness = new PluginHarness(
      pluginOf(async (ctx, task) => {
        kept ??= ctx.anthropic;
        return ask({ ...ctx, anthropic: kept }, task);
      }),
      { model: () => "answer" },
    );
    await harness.run(A);
    await harness.run(A);
    expect(() => harness.assertNoCrossTenantCalls()).toThrow("came after its task was over");
  });

  it("catches one tenant's text in another tenant's prompt", async () => {
    const seen: string[] = [];
    await together(async (ctx, task) => {
      seen.push(task);
      return ask(ctx, seen.join("\n"));
    });
    expect(() => harness.assertNoCrossTenantCalls()).toThrow("something of tenant test-tenant-1 is in a call or the result of tenant test-tenant-2");
  });

  it("catches one tenant's secret in another tenant's result", async () => {
    let kept = "";
    await together(async (ctx, task) => {
      const own = ctx.secret("api_token")?.reveal() ?? "";
      kept ||= own;
      await ask(ctx, task);
      return kept;
    });
    expect(() => harness.assertNoCrossTenantCalls()).toThrow("is in a call or the result of tenant test-tenant-2");
  });

  it("says when the script has no further answer", async () => {
    harness = new PluginHarness(
      pluginOf(async (ctx, task) => (await ask(ctx, task)) + (await ask(ctx, task))),
      { model: ["one"] },
    );
    await expect(harness.run({ task: "do" })).rejects.toThrow("the model script has 1 answers, and the node work asked for one more");
  });

  it("passes on only the secrets that the manifest declares", async () => {
    harness = new PluginHarness(pluginOf(() => ""));
    await harness.run(A);
    expect(harness.lastRun.input.context.secrets).toEqual({});
  });

  it("has nothing to say for a plugin that was not run", () => {
    harness = new PluginHarness(pluginOf(() => ""));
    expect(() => harness.assertOutputSchemaValid()).toThrow("nothing was run yet");
  });
});
