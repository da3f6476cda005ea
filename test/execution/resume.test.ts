import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { publicId } from "../../shared/ids.ts";
import { filer, waiter } from "../batteries/plugins.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { answer, hang, type ScriptedProvider, startScriptedProvider } from "../support/scripted-provider.ts";
import { admitPlan, billedSteps, ended, executions, give, giver, mirror, step, thinker, usageOf } from "./plans.ts";

let provider: ScriptedProvider;
let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  provider = await startScriptedProvider(() => answer("unused"));
  platform = await startTestPlatform({ plugins: [giver, mirror, filer, waiter, thinker], env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "scripted" } });
});
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});
beforeEach(async () => {
  tenant = await platform.tenant();
  executions.length = 0;
});

/** An executor that stops for ever at the n-th time that it comes to this point, as one that was killed there. */
function stopAt(failpoint: string, hit = 1): Promise<void> {
  return new Promise((reached) => {
    let hits = 0;
    globalThis.aauFailpoint = async (name) => {
      if (name !== failpoint || ++hits !== hit) return;
      reached();
      await new Promise(() => {});
    };
  });
}
afterEach(() => {
  globalThis.aauFailpoint = undefined;
});

/** What the clock does to a task whose executor is dead, at once; one that only stands still could renew its lease meanwhile. */
const loseLease = (id: string, more = sql``) =>
  platform.db.platform((tx) =>
    sql`UPDATE tasks SET lease_token = gen_random_uuid(), lease_until = now() - interval '1 second', next_ring_at = now() - interval '1 second' ${more} WHERE id = ${id}`.execute(
      tx,
    ),
  );
/** For this test's tenant: an executor that lost its lease may still try for another one. */
const ran = () => executions.filter(({ input }) => input.context.tenant_id === publicId("tenant", tenant.tenantId)).map(({ plugin }) => plugin);
const stepsOf = (id: string) =>
  platform.db.call<{ step: string; attempt: number; status: string }>("SELECT step, attempt, status FROM task_steps WHERE task_id = $1 ORDER BY step", [id]);
const isQuestion = (which: string) => (text: string) => text.includes(`${which}: `);

describe("a plan whose executor is gone between two steps", () => {
  it("goes on behind the last finished step, which is not run again", async () => {
    const stopped = stopAt("step.after_record");
    const id = await admitPlan(platform, tenant, [step("find", "giver", { command: give({ data: { z: 1, a: { y: 2, b: 3 } } }) }), step("show", "mirror", { needs: ["find"] })]);
    await platform.runCron("wake");
    await stopped;
    await loseLease(id);
    const task = await ended(platform, tenant, id);
    expect(task).toMatchObject({ status: "success", execution_meta: { attempts: 2 } });
    expect(ran()).toEqual(["giver", "mirror"]);
    expect(await stepsOf(id)).toEqual([
      { step: "find", attempt: 1, status: "success" },
      { step: "show", attempt: 2, status: "success" },
    ]);
    expect((await billedSteps(platform, id)).map(({ step, billable }) => [step, billable])).toEqual([
      ["find", true],
      ["show", true],
    ]);
    expect((await usageOf(platform, tenant)).map(({ used, reserved }) => [used, reserved])).toEqual([
      [1, 0],
      [1, 0],
    ]);
  });

  it("runs a step again that finished and was not written down, and pays for no answer twice", async () => {
    const before = provider.ledger.length;
    provider.use(({ call }) => answer(`answer ${call - before}`));
    const stopped = stopAt("step.before_record");
    const id = await admitPlan(platform, tenant, [step("think", "thinker", { command: "wonder" }), step("show", "mirror", { needs: ["think"] })]);
    await platform.runCron("wake");
    await stopped;
    await loseLease(id);
    const task = await ended(platform, tenant, id);
    expect(task.data.steps.show.data.input.attachments[0].content).toContain('"result":"answer 1 answer 2"');
    expect(ran()).toEqual(["thinker", "thinker", "mirror"]);
    expect(provider.ledger.length - before).toBe(2);
    expect(await billedSteps(platform, id)).toMatchObject([
      { step: "show", tokens: 0 },
      { step: "think", tokens: 240 },
    ]);
  });

  it("asks a model in the second step the same again, so that the journal answers what was answered", async () => {
    const before = provider.ledger.length;
    let isAway = true;
    provider.use(({ text }) => (isAway && isQuestion("second")(text) ? hang() : answer("known")));
    // Keys in an order that PostgreSQL does not keep.
    const find = step("find", "giver", { command: give({ data: { zebra: 1, a: { yak: 2, b: 3 } } }) });
    const id = await admitPlan(platform, tenant, [find, step("think", "thinker", { needs: ["find"], inputs: [{ from: "find", pointer: "/data", as: "description" }] })]);
    await platform.runCron("wake");
    await provider.arrived(before + 2);
    isAway = false;
    await loseLease(id);
    expect(await ended(platform, tenant, id)).toMatchObject({ status: "success", execution_meta: { attempts: 2, tokens_used: 240 } });
    expect(ran()).toEqual(["giver", "thinker", "thinker"]);
    const asked = provider.ledger.slice(before);
    expect(asked.map(({ completed }) => completed)).toEqual([true, false, true]);
    expect(asked[1]?.bodySha256).toBe(asked[2]?.bodySha256);
  });

  it("is partial with what is done when its deadline passes, or when too many executors died of it", async () => {
    for (const [more, code] of [
      [sql`, deadline = now() - interval '1 second'`, "PLUGIN_TIMEOUT"],
      [sql`, attempt = 100`, "PLUGIN_UNAVAILABLE"],
    ] as const) {
      const stopped = stopAt("step.after_record");
      const id = await admitPlan(platform, tenant, [
        step("find", "giver", { command: give({ result: "this much" }) }),
        step("show", "mirror", { needs: ["find"] }),
        step("on", "mirror", { needs: ["show"] }),
      ]);
      await platform.runCron("wake");
      await stopped;
      await loseLease(id, more);
      const task = await ended(platform, tenant, id);
      expect(task).toMatchObject({ status: "partial", result: "## find (giver)\n\nthis much" });
      expect(task.steps.map(({ error }: { error: { code: string } | null }) => error?.code)).toEqual([undefined, code, "DEPENDENCY_FAILED"]);
    }
    expect(ran()).toEqual(["giver", "giver"]);
    expect((await usageOf(platform, tenant)).map(({ used, reserved }) => [used, reserved])).toEqual([
      [2, 0],
      [0, 0],
    ]);
  });

  it("writes nothing and begins nothing when it comes back and finds its lease lost", async () => {
    let letGo = () => {};
    const held = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const hits: string[] = [];
    const count = (point: string) => hits.filter((hit) => hit === point).length;
    globalThis.aauFailpoint = async (name) => {
      hits.push(name);
      if (name === "step.before_record" && count(name) === 1) await held;
    };
    const id = await admitPlan(platform, tenant, [step("find", "giver", { command: give({}) }), step("show", "mirror", { needs: ["find"] })]);
    await platform.runCron("wake");
    await expect.poll(() => count("step.before_record"), { timeout: 15_000 }).toBe(1);
    await loseLease(id);
    expect((await ended(platform, tenant, id)).status).toBe("success");
    letGo();
    await expect.poll(() => count("settle.after_commit"), { timeout: 15_000 }).toBe(2);
    expect(ran()).toEqual(["giver", "giver", "mirror"]);
    expect((await stepsOf(id)).map(({ attempt }) => attempt)).toEqual([2, 2]);
  });
});

describe("recording a step", () => {
  const STEP = { step: "find", plugin_name: "giver", plugin_version: "1.0.0", attempt: 1, status: "success", output: {}, error: null, confidence: 1, latency_ms: 1 };
  const record = (id: string, lease: string, attempt: number) =>
    platform.db.call("SELECT * FROM record_step($1, $2, $3, $4, $5)", [
      tenant.tenantId,
      id,
      lease,
      JSON.stringify({ ...STEP, attempt }),
      JSON.stringify([{ type: "step_finished", data: {} }]),
    ]);
  const claim = async (id: string) => (await platform.db.call<{ lease_token: string }>("SELECT lease_token FROM claim_tasks($1, 30000, 3)", [[id]]))[0]?.lease_token ?? "";

  it("takes the lease that holds, and is done once however often it is asked for", async () => {
    const id = await admitPlan(platform, tenant, [step("find", "giver"), step("show", "mirror", { needs: ["find"] })]);
    const old = await claim(id);
    await loseLease(id);
    const lease = await claim(id);
    expect(await record(id, old, 1)).toEqual([{ held: false, cancel_requested: false }]);
    expect(await stepsOf(id)).toEqual([]);
    for (let n = 0; n < 2; n++) expect(await record(id, lease, 2)).toEqual([{ held: true, cancel_requested: false }]);
    expect(await stepsOf(id)).toEqual([{ step: "find", attempt: 2, status: "success" }]);
    expect(await platform.db.call("SELECT seq, type FROM task_events WHERE task_id = $1", [id])).toEqual([{ seq: 1, type: "step_finished" }]);
    await platform.db.call("SELECT * FROM cancel_task($1, $2)", [tenant.tenantId, id]);
    expect(await record(id, lease, 2)).toEqual([{ held: true, cancel_requested: true }]);
  });
});

describe("a plan one of whose plugins is away", () => {
  it("is handed back with what is done, and goes on from there", async () => {
    await platform.register({ ...waiter, manifest: { ...waiter.manifest, name: "comes-late", max_retries: 0 } }, "http://127.0.0.1:9");
    const id = await admitPlan(platform, tenant, [
      step("find", "giver", { command: give({}) }),
      step("late", "comes-late", { needs: ["find"] }),
      step("aside", "giver", { command: give({ result: "aside" }) }),
      step("behind-aside", "mirror", { needs: ["aside"] }),
    ]);
    await platform.runCron("wake");
    const state = async () => (await platform.db.call<{ status: string; hand_backs: number }>("SELECT status, hand_backs FROM tasks WHERE id = $1", [id]))[0];
    await expect.poll(state, { timeout: 15_000 }).toEqual({ status: "queued", hand_backs: 1 });
    expect((await stepsOf(id)).map(({ step }) => step)).toEqual(["aside", "behind-aside", "find"]);
    // It never comes: the task waits until its deadline.
    await platform.db.platform((tx) => sql`UPDATE tasks SET deadline = now() + interval '2 seconds', next_ring_at = now() - interval '1 second' WHERE id = ${id}`.execute(tx));
    const task = await ended(platform, tenant, id);
    expect(task).toMatchObject({ status: "partial" });
    expect(task.steps[1]).toMatchObject({ status: "failed", error: { code: expect.stringMatching(/^PLUGIN_(UNAVAILABLE|TIMEOUT)$/) } });
    expect(ran().sort()).toEqual(["giver", "giver", "mirror"]);
  });
});

describe("what the plugins are told", () => {
  it("stays with the task while it runs, and no longer", async () => {
    const stopped = stopAt("step.after_record");
    const bytes = Buffer.from(new Float32Array([0.5, -0.5]).buffer);
    const id = await admitPlan(platform, tenant, [step("find", "giver", { command: give({}) }), step("show", "mirror", { needs: ["find"] })], {
      conversationId: "talk",
      embedding: { bytes, model: "some model" },
    });
    const kept = async () =>
      (
        await platform.db.call<{ context: unknown; vector: Buffer | null; model: string | null }>(
          "SELECT context, command_embedding AS vector, command_embedding_model AS model FROM tasks WHERE id = $1",
          [id],
        )
      )[0];
    await platform.runCron("wake");
    await stopped;
    expect(await kept()).toEqual({ context: { history: [], knowledge: [], warnings: [] }, vector: bytes, model: "some model" });
    // As if the conversation had been read by the first attempt: the second one is told the same.
    await loseLease(id, sql`, context = '{"history": [{"role": "user", "content": "what I said before"}], "knowledge": [], "warnings": [{"code": "W", "message": "as before"}]}'`);
    const task = await ended(platform, tenant, id);
    expect(task.data.steps.show.data.input.context.conversation_history).toEqual([{ role: "user", content: "what I said before" }]);
    expect(task.warnings).toContainEqual({ code: "W", message: "as before", step: "show" });
    expect(await kept()).toEqual({ context: null, vector: null, model: null });
  });
});

describe("a step whose result cannot be stored", () => {
  it("fails, and the task keeps what the others gave", async () => {
    const deep = `${"[".repeat(7_000)}${"]".repeat(7_000)}`;
    const unstorable = `{"data": {"deep": ${deep}}}`;
    const id = await admitPlan(platform, tenant, [
      step("deep", "giver", { command: unstorable }),
      step("good", "giver", { command: give({ result: "good" }) }),
      step("deep-last", "giver", { needs: ["good"], command: unstorable }),
      step("behind", "mirror", { needs: ["deep"] }),
    ]);
    const task = await ended(platform, tenant, id);
    expect(task).toMatchObject({ status: "partial", result: "## good (giver)\n\ngood" });
    expect(task.steps.map(({ error }: { error: { code: string } | null }) => error?.code)).toEqual(["INTERNAL", undefined, "INTERNAL", "DEPENDENCY_FAILED"]);
  });
});
