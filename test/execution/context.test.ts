import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { conversationIdOf } from "../../shared/conversations/conversation-id.ts";
import { failer } from "../batteries/plugins.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { admitPlan, closedMirror, ended, executions, give, giver, mirror, step } from "./plans.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [giver, mirror, closedMirror, failer] });
});
afterAll(() => platform?.stop());
beforeEach(async () => {
  tenant = await platform.tenant();
  executions.length = 0;
});

const say = async (plugin: string, command: string, conversation_id: string | undefined = "chat", key = tenant.key) =>
  (await platform.call("POST", "/v1/tasks", { key, body: { command, plugin, conversation_id }, headers: { prefer: "wait=20" } })).body;
const told = () => executions.at(-1)?.input.context.conversation_history.map(({ role, content }) => [role, content]);

describe("a task in a conversation", () => {
  it("is told what was said before in it, and nothing of another one or without one", async () => {
    await say("giver", give({ result: "It is blue." }));
    await say("mirror", "And at night?");
    expect(told()).toEqual([
      ["user", give({ result: "It is blue." })],
      ["assistant", "It is blue."],
    ]);
    await say("mirror", "And in winter?");
    expect(told()?.slice(2)).toEqual([
      ["user", "And at night?"],
      ["assistant", "seen"],
    ]);
    await say("mirror", "Hello", "another");
    expect(told()).toEqual([]);
    await tenant.api("POST", "/v1/tasks", { command: "Hello", plugin: "mirror" }, { prefer: "wait=20" });
    expect(told()).toEqual([]);
  });

  it("tells nothing to a plugin without the scope, and keeps no command that failed", async () => {
    await say("giver", give({ result: "It is blue." }));
    await say("failer", "break it");
    await say("closed-mirror", "And at night?");
    expect(told()).toEqual([]);
    await say("mirror", "And now?");
    expect(told()?.map(([, content]) => content)).toEqual([give({ result: "It is blue." }), "It is blue.", "And at night?"]);
  });

  it("is told less from the start by a later attempt when an earlier one found the whole too long for that step", async () => {
    const id = await admitPlan(platform, tenant, [step("a", "mirror"), step("b", "mirror", { needs: ["a"] })]);
    const history = ["one", "two"].map((content) => ({ role: "user", content }));
    await platform.db.platform((tx) =>
      sql`UPDATE tasks SET context = ${JSON.stringify({ history, knowledge: [], warnings: [], shortened: ["b mirror"] })} WHERE id = ${id}`.execute(tx),
    );
    const task = await ended(platform, tenant, id);
    expect(executions.map(({ input }) => input.context.conversation_history.map(({ content }) => content))).toEqual([["one", "two"], ["two"]]);
    expect(task.warnings).toMatchObject([{ code: "CONTEXT_WINDOW_OVERFLOW", step: "b" }]);
  });

  it("is told nothing when it comes from a service account", async () => {
    const { key } = await tenant.mintKey({ userId: null });
    await say("giver", give({ result: "It is blue." }), "chat", key);
    expect((await say("mirror", "And at night?", "chat", key)).status).toBe("success");
    expect(told()).toEqual([]);
  });

  it("is done with a warning when the conversation cannot be read", async () => {
    await say("giver", give({ result: "It is blue." }));
    const admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
    await admin.connect();
    try {
      await admin.query("ALTER FUNCTION read_conversation(uuid, uuid) RENAME TO read_conversation_away");
      const task = await say("mirror", "And at night?");
      expect(task).toMatchObject({ status: "success", warnings: [{ code: "CONTEXT_UNAVAILABLE", message: expect.stringContaining("conversation") }] });
      expect(told()).toEqual([]);
    } finally {
      await admin.query("ALTER FUNCTION read_conversation_away(uuid, uuid) RENAME TO read_conversation");
      await admin.end();
    }
  });

  it("rings for a summary when it has more turns than a plugin is given", async () => {
    for (let n = 0; n < 11; n++) await say("giver", give({ result: `answer ${n}` }));
    const id = conversationIdOf(tenant.tenantId, tenant.userId, "chat");
    const summarised = async () => (await platform.db.call<{ n: string }>("SELECT summarised_through AS n FROM conversations WHERE id = $1", [id]))[0]?.n;
    await expect.poll(summarised, { timeout: 15_000 }).not.toBe("0");
    await say("mirror", "And what was that?");
    expect(executions.at(-1)?.input.context.conversation_history[0]).toMatchObject({ role: "user", summary: true });
  });
});
