/** A plugin that says a secret aloud: nothing that it said is stored, shown or handed on with the secret in it. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { mirror } from "./plans.ts";

const VALUE = 'tok/"9f3c"+8a71';
const FORMS = [VALUE, encodeURIComponent(VALUE), JSON.stringify(VALUE).slice(1, -1), Buffer.from(VALUE).toString("base64")];
const State = Annotation.Root({ text: Annotation<string>() });

const blabber = definePlugin({
  name: "blabber",
  version: "1.0.0",
  description: "Says its secret aloud, for tests.",
  capabilities: ["Say a secret aloud."],
  category: "testing",
  estimatedLatency: "medium",
  requiredScopes: ["context:read", "store:write", "secrets:token"],
  requiredSecretNames: ["token"],
  graph: new StateGraph(State)
    .addNode(
      "say",
      node(async (_: typeof State.State, ctx) => {
        const value = ctx.secret("token")?.reveal() ?? "none";
        await ctx.artifacts.put({ name: "plain.txt", mediaType: "text/plain", content: "fine" });
        await ctx.artifacts.put({ name: `${Buffer.from(value).toString("base64")}.txt`, mediaType: "text/plain", content: "named" });
        if (ctx.input.task_description === "fail") throw Object.assign(new Error(value), { name: value });
        return { text: value };
      }),
    )
    .addEdge(START, "say")
    .addEdge("say", END),
  start: () => ({}),
  finish: ({ text }: typeof State.State) => ({
    status: "success",
    result: `The token is ${text}.`,
    confidence: 0.9,
    data: { [text]: [text, { deep: encodeURIComponent(text) }] },
    nextSteps: [`Call https://api.example/?key=${encodeURIComponent(text)}`],
  }),
});

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [blabber, mirror] });
  tenant = await platform.tenant();
  expect((await tenant.api("PUT", "/v1/plugins/blabber/secrets/token", { value: VALUE })).status).toBe(201);
});
afterAll(() => platform?.stop());
const run = async (body: Record<string, unknown>) => (await tenant.api("POST", "/v1/tasks", { command: "say", ...body }, { prefer: "wait=20" })).body;

/** All that the database holds of this tenant besides the sealed secret. */
async function rows(): Promise<string> {
  const tables = ["tasks", "task_steps", "task_events", "execution_events"];
  const texts = await Promise.all(
    tables.map((table) => platform.db.call<{ all: string }>(`SELECT coalesce(string_agg(t::text, ' '), '') AS all FROM ${table} t WHERE tenant_id = $1`, [tenant.tenantId])),
  );
  return texts.map(([row]) => row?.all ?? "").join("\n");
}

describe("a secret in a plugin's answer", () => {
  it("is taken out of the result, the data and its keys, the next steps, and the list of artifacts, with a warning", async () => {
    const task = await run({ plugin: "blabber" });
    expect(task).toMatchObject({
      status: "success",
      result: "The token is [secret].",
      data: { "[secret]": ["[secret]", { deep: "[secret]" }] },
      next_steps: ["Call https://api.example/?key=[secret]"],
      warnings: [{ code: "SECRET_REDACTED" }],
    });
    expect(task.artifacts.map(({ name }: { name: string }) => name)).toEqual(["plain.txt"]);
  });

  it("is taken out of a failure", async () => {
    const task = await run({ plugin: "blabber", command: "fail" });
    expect(task.status).toBe("failed");
    for (const form of FORMS) expect(JSON.stringify(task)).not.toContain(form);
  });

  it("does not reach the next step, and stands in no row", async () => {
    const task = await run({
      plan: [
        { id: "first", plugin: "blabber" },
        { id: "second", plugin: "mirror", needs: ["first"] },
      ],
    });
    expect(task.status).toBe("success");
    const shown = JSON.stringify(task);
    expect(shown).toContain("The token is [secret].");
    const stored = await rows();
    expect(stored).toContain("[secret]");
    for (const form of FORMS) for (const text of [shown, stored]) expect(text).not.toContain(form);
  });
});
