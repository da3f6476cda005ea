/** Commands and plans that nobody could carry out: the right code, the place that is wrong, and no row. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { ErrorCode } from "../../shared/errors.ts";
import { useUpSandbox } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";
import { expectRefusal } from "./refusal.ts";
import { expectNothingWritten } from "./row-counts.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, asker], withBridge: false });
});
beforeEach(async () => {
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

/** As a dry run it is refused alike. */
async function refuses(body: unknown, code: ErrorCode, said: RegExp): Promise<void> {
  await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
    for (const path of ["/v1/tasks", "/v1/tasks?dry_run=true"]) expect(JSON.stringify(expectRefusal(await tenant.api("POST", path, body), code, path))).toMatch(said);
  });
}

describe("a command is refused", () => {
  it.each<[string, unknown, ErrorCode, RegExp]>([
    ["that is empty", { command: "" }, "INVALID_INPUT", /command: must not be empty/],
    ["of white space", { command: " \n\t\u3000" }, "INVALID_INPUT", /command: must not be empty/],
    ["that is not there", { plugin: "echo" }, "INVALID_INPUT", /command/],
    ["of 10,001 characters", { command: "x".repeat(10_001), plugin: "echo" }, "INVALID_INPUT", /at most 10000 characters/],
    ["of 1 MB", { command: "Review this. ".repeat(80_000) }, "INVALID_INPUT", /at most 10000 characters/],
    ["with NUL", { command: "say \u0000", plugin: "echo" }, "INVALID_INPUT", /./],
    ["with half a character", { command: "say \ud83d", plugin: "echo" }, "INVALID_INPUT", /./],
    ["for a plugin that is not there", { command: "say", plugin: "no-such-plugin" }, "NOT_FOUND", /no-such-plugin/],
    ["for a look-alike of a plugin", { command: "say", plugin: "\u0435cho" }, "INVALID_INPUT", /plugin/],
    ["with a plugin and a plan", { command: "say", plugin: "echo", plan: [{ id: "a", plugin: "echo" }] }, "INVALID_INPUT", /not both/],
  ])("%s", (_, body, code, said) => refuses(body, code, said));

  it("in bytes that are no UTF-8", async () => {
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const rawBody = new Uint8Array([...Buffer.from('{"command":"say '), 0xc3, 0x28, 0xff, ...Buffer.from('","plugin":"echo"}')]);
      expectRefusal(await platform.call("POST", "/v1/tasks", { key: tenant.key, rawBody }), "INVALID_INPUT");
    });
  });
});

describe("a plan is refused", () => {
  const step = (id: string, more: Record<string, unknown> = {}) => ({ id, plugin: "echo", ...more });
  const plans: [string, unknown[], ErrorCode, RegExp][] = [
    ["without steps", [], "INVALID_INPUT", /at least one step/],
    ["of eleven steps", Array.from({ length: 11 }, (_, n) => step(`s${n}`)), "INVALID_INPUT", /at most 10 steps/],
    ["of a hundred thousand", Array.from({ length: 100_000 }, () => 0), "INVALID_INPUT", /at most 10 steps/],
    ["with a plugin that is not there", [step("a"), step("b", { plugin: "no-such-plugin" })], "NOT_FOUND", /no-such-plugin/],
    ["with a version that is not there", [step("a", { version: "^7.0.0" })], "VERSION_UNSATISFIED", /\^7\.0\.0/],
    ["with a version that is no range", [step("a", { version: "newest" })], "INVALID_INPUT", /plan\.0\.version/],
    ["that goes round", [step("a", { needs: ["c"] }), step("b", { needs: ["a"] }), step("c", { needs: ["b"] })], "CIRCULAR_DEPENDENCY", /"path":\["a","c","b","a"\]/],
    ["with a step that needs itself", [step("a", { needs: ["a"] })], "CIRCULAR_DEPENDENCY", /"path":\["a","a"\]/],
    ["with a need that is not there", [step("a", { needs: ["ghost"] })], "INVALID_INPUT", /plan\.0\.needs\.0/],
    ["with two steps of one name", [step("a"), step("a")], "INVALID_INPUT", /plan\.1\.id/],
    ["with a name that every object has", [step("__proto__")], "INVALID_INPUT", /plan\.0\.id/],
    [
      "with an input of a step that it does not need",
      [step("a"), step("b", { inputs: [{ from: "a", pointer: "/result", as: "attachment" }] })],
      "INVALID_INPUT",
      /inputs\.0\.from/,
    ],
    ["with a pointer to elsewhere", [step("a"), step("b", { needs: ["a"], inputs: [{ from: "a", pointer: "/secrets", as: "attachment" }] })], "INVALID_INPUT", /pointer/],
    ["with a condition that does not parse", [step("a"), step("b", { needs: ["a"], when: "steps.a.status ==" })], "INVALID_INPUT", /plan\.1\.when/],
    ["with a condition on a step that it does not need", [step("a"), step("b", { when: "steps.a.confidence > 0.5" })], "INVALID_INPUT", /plan\.1\.when/],
    ["with a condition on what no step has", [step("a"), step("b", { needs: ["a"], when: "steps.a.secrets == 1" })], "INVALID_INPUT", /plan\.1\.when/],
    ["with a condition that is a program", [step("a"), step("b", { needs: ["a"], when: "process.exit(1)" })], "INVALID_INPUT", /plan\.1\.when/],
    ["with a condition of 100 kB", [step("a"), step("b", { needs: ["a"], when: "true || ".repeat(12_500) })], "INVALID_INPUT", /plan\.1\.when/],
    ["with a member that no step has", [step("a", { scopes: ["store:write"] })], "INVALID_INPUT", /scopes/],
  ];
  it.each(plans)("%s", (_, plan, code, said) => refuses({ command: "do all of it", plan }, code, said));

  it("from a tenant whose tier has no plans", async () => {
    tenant = await platform.tenant({ tier: "starter" });
    await refuses({ command: "do all of it", plan: [step("a"), step("b", { needs: ["a"] })] }, "CHAINING_NOT_INCLUDED", /./);
  });

  it("with a plugin that the tenant has neither subscribed to nor a free execution of, whatever the other steps are", async () => {
    tenant = await platform.tenant({ subscriptions: { echo: null } });
    await useUpSandbox(platform, tenant, "asker");
    await refuses({ command: "do all of it", plan: [step("a"), step("b", { plugin: "asker", needs: ["a"] })] }, "PLUGIN_NOT_SUBSCRIBED", /asker/);
  });
});
