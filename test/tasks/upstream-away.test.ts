import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { asker } from "../support/plugins.ts";
import { answer, failure, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";

let provider: ScriptedProvider;
let platform: TestPlatform;
beforeAll(async () => {
  provider = await startScriptedProvider(() => answer("unused"));
  platform = await startTestPlatform({ plugins: [asker], env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted" } });
});
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});

describe("a task whose model is away for a moment", () => {
  it("is tried again, and the caller sees only the answer", async () => {
    const seen = provider.ledger.length;
    provider.use(({ call }) => (call === seen + 1 ? failure(529) : answer("here again")));
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "ask", plugin: "asker" }, { prefer: "wait=20" });
    expect(body).toMatchObject({ status: "success", result: "here again", error: null });
    expect(provider.ledger.slice(seen).map(({ status }) => status)).toEqual([529, 200]);
  });

  it("is not tried again when the provider says that it will never answer this", async () => {
    const seen = provider.ledger.length;
    provider.use(() => failure(400, { message: "messages: something is wrong with them" }));
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "ask", plugin: "asker" }, { prefer: "wait=20" });
    expect(body).toMatchObject({ status: "failed" });
    expect(provider.ledger.length).toBe(seen + 1);
  });
});
