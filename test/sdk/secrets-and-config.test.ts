import { Console } from "node:console";
import { Writable } from "node:stream";
import { inspect } from "node:util";
import { serialize } from "node:v8";
import * as v from "valibot";
import { afterEach, describe, expect, it } from "vitest";
import { CallerMistake, type NodeContext } from "../../shared/sdk/src/index.ts";
import { maskSecret } from "../../shared/sdk/src/secret.ts";
import { serve } from "../../shared/sdk/src/serve.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { executeRequest } from "./execute-request.ts";
import { pluginOf } from "./plugins.ts";

const VALUE = 'ghp_0123456789/+ü"abc';
let harness: PluginHarness | undefined;
afterEach(() => harness?.close());

const withSecret = (work: (ctx: NodeContext) => string | Promise<string>) => new PluginHarness(pluginOf(work, { requiredSecretNames: ["github_token"] }));

describe("a secret", () => {
  it("shows itself only to reveal()", () => {
    const secret = maskSecret(VALUE);
    expect([String(secret), `${secret}`, JSON.stringify({ secret }), inspect({ deep: [secret] }), inspect(secret, { showHidden: true }), Object.values(secret).join()]).toEqual([
      "[secret]",
      "[secret]",
      '{"secret":"[secret]"}',
      "{ deep: [ [secret] ] }",
      "[secret]",
      "",
    ]);
    expect(secret.reveal()).toBe(VALUE);
  });

  it("shows itself to nothing that copies, prints or joins", () => {
    const secret = maskSecret(VALUE);
    const printed: string[] = [];
    const out = new Writable({
      write(chunk, _, done) {
        printed.push(String(chunk));
        done();
      },
    });
    const to = new Console(out, out);
    to.log(secret, { secret }, "%s", secret);
    to.log("%s %o %O %j %d", secret, secret, secret, secret, secret);
    to.dir(secret, { showHidden: true });
    to.table([{ secret }]);
    to.error(new Error(`${secret}`, { cause: secret }));
    const seen = [
      ...printed,
      `${secret}`,
      `${secret}x`,
      [secret].join(),
      new Error(String(secret)).stack,
      inspect(structuredClone({ secret }), { showHidden: true }),
      inspect({ ...secret }, { showHidden: true }),
      inspect(Object.assign({}, secret)),
      inspect(secret, { customInspect: false, showHidden: true, getters: true }),
      serialize({ secret }).toString("latin1"),
      JSON.stringify([secret, { [String(secret)]: secret }]),
      JSON.stringify(Object.getOwnPropertyDescriptors(secret)),
      encodeURIComponent(String(secret)),
    ];
    for (const text of seen) expect(text).not.toContain("ghp_");
    expect(printed[0]).toContain("[secret] { secret: [secret] }");
    expect(printed[1]).toMatch(/^\[secret\] \[secret\] \[secret\] "\[secret\]" NaN/);
  });

  it("is null when the tenant has not set it", async () => {
    harness = withSecret((ctx) => String(ctx.secret("github_token")));
    expect((await harness.run({ task: "do" })).result).toBe("null");
  });

  it("is invisible when the manifest does not declare it, though the envelope brought it", async () => {
    const plugin = pluginOf((ctx) => `${ctx.secret("other_token")} ${JSON.stringify(ctx.input)}`);
    const server = await serve(plugin, { port: 0, signals: false, log: () => {}, llmGatewayUrl: "http://127.0.0.1:9", scopeGatewayUrl: "http://127.0.0.1:9" });
    try {
      const answer = await executeRequest(server.url, { context: { tenant_id: "t", user_id: null, secrets: { other_token: VALUE } } });
      const text = await answer.text();
      expect(text).toContain('"result":"null {');
      expect(text).not.toContain("ghp_");
    } finally {
      await server.close();
    }
  });

  it("does not stand in the input that start, the nodes and finish see", async () => {
    harness = new PluginHarness(
      pluginOf((ctx, task) => task + JSON.stringify(ctx.input), { requiredSecretNames: ["github_token"], start: (input) => ({ task: JSON.stringify(input) }) }),
    );
    expect((await harness.run({ task: "do", secrets: { github_token: VALUE } })).result).not.toContain("ghp_");
  });

  it.each<[string, (ctx: NodeContext, value: string) => string]>([
    [
      "a report",
      (ctx, value) => {
        ctx.report(`using ${value}`);
        return "";
      },
    ],
    [
      "a warning",
      (ctx, value) => {
        ctx.warn({ code: "X", message: encodeURIComponent(value) });
        return "";
      },
    ],
    [
      "a mistake told to the caller",
      (_ctx, value) => {
        throw new CallerMistake(`bad ${Buffer.from(value).toString("base64")}`);
      },
    ],
    [
      "an error's text",
      (_ctx, value) => {
        throw new Error(value);
      },
    ],
    [
      "an error's name",
      (_ctx, value) => {
        throw Object.assign(new Error(), { name: value });
      },
    ],
  ])("is taken out of %s", async (_where, leak) => {
    harness = withSecret((ctx) => leak(ctx, ctx.secret("github_token")?.reveal() ?? ""));
    await harness.run({ task: "do", secrets: { github_token: VALUE } });
    const said = JSON.stringify([harness.lastRun.events, harness.logs]);
    for (const form of ["ghp_0", encodeURIComponent(VALUE), Buffer.from(VALUE).toString("base64")]) expect(said).not.toContain(form);
  });
});

describe("the configuration", () => {
  const configSchema = v.object({ style: v.optional(v.picklist(["short", "long"]), "short") });

  it("reaches the nodes as the plugin's schema reads it", async () => {
    harness = new PluginHarness(pluginOf((ctx) => String(ctx.config.style), { configSchema }));
    expect((await harness.run({ task: "do" })).result).toBe("short");
    expect((await harness.run({ task: "do", pluginConfig: { style: "long" } })).result).toBe("long");
  });

  it("is the caller's mistake where the schema refuses it, and the value is not repeated", async () => {
    harness = new PluginHarness(pluginOf(() => "", { configSchema }));
    const output = await harness.run({ task: "do", pluginConfig: { style: "hunter2" } });
    expect(output).toMatchObject({
      error_code: "INVALID_INPUT",
      error_cause: "caller",
      error: 'The plugin\'s configuration is not valid: style must be ("short" | "long").',
    });
  });
});

describe("what a node says", () => {
  it("is cut to size, and bounded in number", async () => {
    harness = new PluginHarness(
      pluginOf((ctx) => {
        for (let i = 0; i < 1500; i++) ctx.report("r".repeat(600));
        for (let i = 0; i < 60; i++) ctx.warn({ code: "C".repeat(70), message: "m".repeat(3000) });
        return "done";
      }),
    );
    const output = await harness.run({ task: "do" });
    expect(output.warnings).toHaveLength(50);
    expect(harness.lastRun.events.filter(({ type }) => type === "report")).toHaveLength(1000);
    harness.assertOutputSchemaValid();
  });
});
