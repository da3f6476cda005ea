import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { PlanTier } from "../../shared/access/caller.ts";
import { failer, filer, walker } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { readCatalogue } from "../corpus/corpus.ts";
import { useUpSandbox } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

/** One platform whose tasks stay queued, and one that runs them. */
let still: TestPlatform;
let running: TestPlatform;
beforeAll(async () => {
  [still, running] = await Promise.all([startTestPlatform({ plugins: [echo, filer], withBridge: false }), startTestPlatform({ plugins: [echo, filer, failer] })]);
});
afterAll(() => Promise.all([still?.stop(), running?.stop()]));

const submit = (tenant: TestTenant, plan: unknown, more: Record<string, unknown> = {}, headers: Record<string, string> = {}) =>
  tenant.api("POST", "/v1/tasks", { command: "say it", plan, ...more }, headers);
const dryRun = (tenant: TestTenant, body: Record<string, unknown>, headers: Record<string, string> = {}) => tenant.api("POST", "/v1/tasks?dry_run=true", body, headers);
const CHAIN = [
  { id: "first", plugin: "echo" },
  { id: "second", plugin: "filer", needs: ["first"] },
];
const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(still.env.DATABASE_URL ?? "", work);

async function usageOf(platform: TestPlatform, tenant: TestTenant) {
  const rows = await platform.db.call<{ plugin_name: string; used: number; reserved: number }>(
    "SELECT plugin_name, used, reserved FROM usage_periods WHERE tenant_id = $1 ORDER BY plugin_name",
    [tenant.tenantId],
  );
  return Object.fromEntries(rows.map(({ plugin_name, used, reserved }) => [plugin_name, [used, reserved]]));
}
async function planOf(platform: TestPlatform, tenant: TestTenant) {
  // biome-ignore lint/suspicious/noExplicitAny: tests look into plans of every shape.
  const [row] = await platform.db.call<{ plan: any; plugin_name: string; overage: boolean }>(
    "SELECT plan, plugin_name, overage FROM tasks WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1",
    [tenant.tenantId],
  );
  return row;
}
let count = 0;
/** Registers a plugin of the test's own, and subscribes the tenants that are given. */
async function publish(
  dependencies: Record<string, string>,
  subscribers: TestTenant[] = [],
  { name = `made-${++count}`, version = "1.0.0", platform = still, capabilities = walker.manifest.capabilities } = {},
): Promise<string> {
  const manifest = {
    ...walker.manifest,
    name,
    version,
    capabilities,
    dependencies: Object.entries(dependencies).map(([dependency, range]) => ({ name: dependency, version: range })),
  };
  await platform.register({ ...walker, manifest }, "http://127.0.0.1:9");
  for (const tenant of subscribers) {
    await platform.db.platform((tx) =>
      tx
        .insertInto("subscriptions")
        .columns(["id", "tenant_id", "plugin_id", "tier", "quota_limit"])
        .expression((e) =>
          e
            .selectFrom("plugins")
            .select((s) => [
              s.fn<string>("gen_random_uuid").as("id"),
              s.val(tenant.tenantId).as("tenant_id"),
              "id as plugin_id",
              s.val("professional").as("tier"),
              s.val<number | null>(null).as("quota_limit"),
            ])
            .where("name", "=", name),
        )
        .execute(),
    );
  }
  return name;
}

describe("a plan of the caller's own", () => {
  it("is admitted with a reservation for every step on its own plugin", async () => {
    const tenant = await still.tenant();
    const answer = await submit(tenant, [...CHAIN, { id: "third", plugin: "echo", command: "again", when: 'steps.second.status == "success"', needs: ["second"] }]);
    expect([answer.status, answer.body.plugin, answer.body.routing]).toEqual([202, "echo", { method: "explicit", confidence: 1 }]);
    expect(await usageOf(still, tenant)).toEqual({ echo: [0, 2], filer: [0, 1] });
    expect((await planOf(still, tenant))?.plan).toEqual([
      { id: "first", plugin: "echo", version: "1.0.0", needs: [] },
      { id: "second", plugin: "filer", version: "1.0.0", needs: ["first"] },
      { id: "third", plugin: "echo", version: "1.0.0", needs: ["second"], command: "again", when: 'steps.second.status == "success"' },
    ]);
  });

  it("gives all of its reservations back when it is cancelled", async () => {
    const tenant = await still.tenant();
    const { task_id } = (await submit(tenant, CHAIN)).body;
    await tenant.api("DELETE", `/v1/tasks/${task_id}`);
    expect(await usageOf(still, tenant)).toEqual({ echo: [0, 0], filer: [0, 0] });
  });

  it("runs, one step on what the other gave, and each counts on its own plugin", async () => {
    const tenant = await running.tenant();
    const answer = await submit(
      tenant,
      [
        { id: "first", plugin: "echo", command: "hello" },
        { id: "second", plugin: "echo", needs: ["first"], inputs: [{ from: "first", pointer: "/result", as: "description" }] },
        { id: "third", plugin: "filer", needs: ["first"] },
      ],
      {},
      { prefer: "wait=20" },
    );
    expect([answer.status, answer.body.status]).toEqual([200, "success"]);
    expect(answer.body.result).toContain("hello");
    expect(await usageOf(running, tenant)).toEqual({ echo: [2, 0], filer: [1, 0] });
  });

  it("gives back what a failed step and those behind it had reserved", async () => {
    const tenant = await running.tenant();
    const steps = [
      { id: "a", plugin: "echo" },
      { id: "b", plugin: "failer" },
      { id: "c", plugin: "filer", needs: ["b"] },
    ];
    expect((await submit(tenant, steps, {}, { prefer: "wait=20" })).body.status).toBe("partial");
    expect(await usageOf(running, tenant)).toEqual({ echo: [1, 0], failer: [0, 0], filer: [0, 0] });
  });

  it("is one task for one Idempotency-Key, however many come at once", async () => {
    const tenant = await still.tenant();
    const answers = await Promise.all(Array.from({ length: 20 }, () => submit(tenant, CHAIN, {}, { "idempotency-key": "k" })));
    expect(new Set(answers.map((answer) => `${answer.status} ${answer.body.task_id}`)).size).toBe(1);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === null)).toHaveLength(1);
    expect(await usageOf(still, tenant)).toEqual({ echo: [0, 1], filer: [0, 1] });
    await nothingWritten(async () => void expectRefusal(await submit(tenant, CHAIN.slice(0, 1), {}, { "idempotency-key": "k" }), "INVALID_INPUT"));
  });

  it("is not for the starter tier, unless it is one step", async () => {
    const tenant = await still.tenant({ tier: "starter" });
    await nothingWritten(async () => {
      expect(expectRefusal(await submit(tenant, CHAIN), "CHAINING_NOT_INCLUDED")).toMatchObject({ plugins: ["echo", "filer"], upgrade_url: expect.stringMatching(/^https:/) });
      expectRefusal(await dryRun(tenant, { command: "x", plan: CHAIN }), "CHAINING_NOT_INCLUDED");
    });
    expect((await submit(tenant, CHAIN.slice(0, 1))).status).toBe(202);
    for (const tier of ["professional", "enterprise"] satisfies PlanTier[]) expect((await submit(await still.tenant({ tier }), CHAIN)).status).toBe(202);
  });

  it("needs a subscription to every plugin in it, and names the one that is missing", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: null } });
    await useUpSandbox(still, tenant, "filer");
    await nothingWritten(async () => {
      expect(expectRefusal(await submit(tenant, CHAIN), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: "filer", upgrade_url: expect.any(String) });
      expect(expectRefusal(await dryRun(tenant, { command: "x", plan: CHAIN }), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: "filer" });
    });
  });

  it("reserves all or nothing, and names the plugin whose quota is used up", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: null, filer: 2 } });
    const three = [1, 2, 3].map((n) => ({ id: `s${n}`, plugin: "filer" }));
    await nothingWritten(async () => {
      expect(expectRefusal(await submit(tenant, [{ id: "a", plugin: "echo" }, ...three]), "QUOTA_EXCEEDED")).toMatchObject({ plugin: "filer", quota_limit: 2 });
      expect(await usageOf(still, tenant)).toEqual({});
    });
    expect((await submit(tenant, [{ id: "a", plugin: "echo" }, ...three.slice(1)])).status).toBe(202);
    expectRefusal(await submit(tenant, CHAIN), "QUOTA_EXCEEDED");
    expectRefusal(await dryRun(tenant, { command: "x", plan: CHAIN }), "QUOTA_EXCEEDED");
    expect(await usageOf(still, tenant)).toEqual({ echo: [0, 1], filer: [0, 2] });
  });

  it("takes exactly what is left, however many come at once and whatever else is submitted beside", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 15, filer: 10 } });
    const backwards = [
      { id: "x", plugin: "filer" },
      { id: "y", plugin: "echo", needs: ["x"] },
    ];
    const answers = await Promise.all(
      Array.from({ length: 45 }, (_, i) =>
        i % 3 === 0 ? submit(tenant, CHAIN) : i % 3 === 1 ? submit(tenant, backwards) : tenant.api("POST", "/v1/tasks", { command: "x", plugin: i % 2 ? "echo" : "filer" }),
      ),
    );
    for (const answer of answers) expect([202, 429], answer.text).toContain(answer.status);
    const [row] = await still.db.call<{ echo: number; filer: number }>(
      "SELECT count(*) FILTER (WHERE s->>'plugin' = 'echo')::int AS echo, count(*) FILTER (WHERE s->>'plugin' = 'filer')::int AS filer FROM tasks t, jsonb_array_elements(t.plan) s WHERE t.tenant_id = $1",
      [tenant.tenantId],
    );
    expect(await usageOf(still, tenant)).toEqual({ echo: [0, row?.echo], filer: [0, row?.filer] });
    expect(row?.filer).toBe(10);
    expect(row?.echo).toBeLessThanOrEqual(15);
  });

  it("marks the steps that are over a quota with overage", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 2, filer: null } });
    await still.db.call("UPDATE subscriptions SET overage_enabled = true WHERE tenant_id = $1", [tenant.tenantId]);
    const steps = [
      { id: "a", plugin: "echo" },
      { id: "b", plugin: "filer" },
      { id: "c", plugin: "echo" },
      { id: "d", plugin: "echo" },
    ];
    expect((await dryRun(tenant, { command: "x", plan: steps })).body.quota).toMatchObject({
      echo: { limit: 2, remaining: 2, overage: true },
      filer: { limit: null, remaining: null, overage: false },
    });
    expect((await submit(tenant, steps)).status).toBe(202);
    const row = await planOf(still, tenant);
    expect([row?.overage, row?.plan.map((step: { id: string; overage?: boolean }) => [step.id, step.overage])]).toEqual([
      true,
      [
        ["a", undefined],
        ["b", undefined],
        ["c", undefined],
        ["d", true],
      ],
    ]);
  });
});

describe("bad plans", () => {
  const step = (more: Record<string, unknown> = {}) => ({ id: "a", plugin: "echo", ...more });
  const two = (more: Record<string, unknown> = {}) => [step(), step({ id: "b", needs: ["a"], ...more })];
  const BAD: [string, unknown, string?][] = [
    ["nothing", []],
    ["no list", { id: "a", plugin: "echo" }],
    ["text", "echo"],
    ["no steps", [1, null, "x", []]],
    ["1000 steps", Array.from({ length: 1000 }, (_, i) => step({ id: `s${i}` }))],
    ["11 steps", Array.from({ length: 11 }, (_, i) => step({ id: `s${i}` }))],
    ["one id twice", [step(), step()]],
    ...["__proto__", "Prototype", "1a", "", "a b", "a.b", "ä", "x".repeat(41), "a'; DROP TABLE tasks; --"].map((id): [string, unknown] => [`the id ${id}`, [step({ id })]]),
    ["an id that is no text", [step({ id: 1 })]],
    ["no id", [{ plugin: "echo" }]],
    ["no plugin", [{ id: "a" }]],
    ["a field that nobody knows", [step({ execute: "now" })]],
    ["a missing need", [step({ needs: ["ghost"] })]],
    ["the need toString", [step({ needs: ["tostring"] })]],
    ["needs that are no list", [step({ needs: "a" })]],
    ["a range that is none", [step({ version: "newest" })]],
    ["a range of 10,000 parts", [step({ version: "1 || ".repeat(10_000) })]],
    ["an empty command", [step({ command: "  " })]],
    ["a command that is too long", [step({ command: "x".repeat(10_001) })]],
    ["a when that does not parse", two({ when: "steps.a.status ==" })],
    ["a when that is no condition", two({ when: "1 + 1" })],
    ["a when that is too long", two({ when: `${"!".repeat(500)}true` })],
    ["a when that is nested too deeply", two({ when: `${"(".repeat(200)}true${")".repeat(200)}` })],
    ["a when on a step that it does not need", [step(), step({ id: "b", when: 'steps.a.status == "success"' })]],
    ["a when on a step that is not there", two({ when: 'steps.ghost.status == "success"' })],
    ["a when on itself", two({ when: 'steps.b.status == "success"' })],
    ["a when on no step in particular", two({ when: "steps.size() > 0" })],
    ["a when on a computed step", two({ when: 'steps[steps.a.status].status == "success"' })],
    ["a when on what steps have not", two({ when: 'steps.a.secrets == "x"' })],
    ["a when on the prototype", two({ when: 'steps.constructor.status == "x"' })],
    ["a when with a name that nobody knows", two({ when: "process.exit() == 1" })],
    ["an input of a step that it does not need", [step(), step({ id: "b", inputs: [{ from: "a", pointer: "", as: "attachment" }] })]],
    ["a pointer that is none", two({ inputs: [{ from: "a", pointer: "data/x", as: "attachment" }] })],
    ["a pointer with a bad escape", two({ inputs: [{ from: "a", pointer: "/data/~2", as: "attachment" }] })],
    ["a pointer into nothing", two({ inputs: [{ from: "a", pointer: "/__proto__/x", as: "attachment" }] })],
    ["an input as a secret", two({ inputs: [{ from: "a", pointer: "/data", as: "secret" }] })],
    ["a file name with a way", two({ inputs: [{ from: "a", pointer: "/data", as: "attachment", name: "../../x" }] })],
    ["a plugin that is not there", [step({ plugin: "no-such-plugin" })], "NOT_FOUND"],
    ["a plugin with the name of a method", [step({ plugin: "constructor" })], "NOT_FOUND"],
    ["a name that can be no plugin's", [step({ plugin: "Echo; DROP" })]],
    ["a version that is not there", [step({ version: "^9.0.0" })], "VERSION_UNSATISFIED"],
    ["a step that needs itself", [step({ needs: ["a"] })], "CIRCULAR_DEPENDENCY"],
    ["a circle", [step({ needs: ["c"] }), step({ id: "b", needs: ["a"] }), step({ id: "c", needs: ["b"] })], "CIRCULAR_DEPENDENCY"],
  ];

  it("are refused with what is wrong, and leave nothing behind; a dry run says the same", async () => {
    const tenant = await still.tenant();
    await nothingWritten(async () => {
      for (const [what, plan, code = "INVALID_INPUT"] of BAD) {
        const said = expectRefusal(await submit(tenant, plan, {}, { "idempotency-key": "k" }), code as "INVALID_INPUT", what);
        expect(said.message, what).not.toMatch(/DROP|x{50}/);
        expect(expectRefusal(await dryRun(tenant, { command: "say it", plan }), code as "INVALID_INPUT", what)).toEqual(said);
      }
    });
  });

  it("say where: the place, or the path of the circle", async () => {
    const tenant = await still.tenant();
    expect(expectRefusal(await submit(tenant, two({ when: "steps.a.status ==" })), "INVALID_INPUT")).toMatchObject({ issues: [{ path: "plan.1.when" }] });
    expect(expectRefusal(await submit(tenant, [step({ needs: ["ghost"] })]), "INVALID_INPUT")).toMatchObject({
      issues: [{ path: "plan.0.needs.0", message: "there is no step ghost" }],
    });
    expect(expectRefusal(await submit(tenant, [step({ needs: ["b"] }), step({ id: "b", needs: ["a"] })]), "CIRCULAR_DEPENDENCY")).toMatchObject({ path: ["a", "b", "a"] });
    expect(expectRefusal(await submit(tenant, [step({ version: "^9" })]), "VERSION_UNSATISFIED")).toMatchObject({ plugin: "echo", range: "^9", available: ["1.0.0"] });
  });

  it("cannot stand beside a plugin", async () => {
    const tenant = await still.tenant();
    await nothingWritten(async () => void expectRefusal(await submit(tenant, CHAIN, { plugin: "echo" }), "INVALID_INPUT"));
  });

  it("do not pollute anything", async () => {
    const tenant = await still.tenant();
    const raw = (plan: string) => still.call("POST", "/v1/tasks", { key: tenant.key, rawBody: `{"command": "say it", "plan": ${plan}}` });
    for (const plan of ['[{"id": "a", "plugin": "echo", "__proto__": {"when": "true"}}]', '[{"__proto__": {"id": "a", "plugin": "echo"}}]', '{"__proto__": [], "length": 1}'])
      expect([202, 422], plan).toContain((await raw(plan)).status);
    expect(Object.hasOwn(Object.prototype, "when")).toBe(false);
    // A step may be called so: it is a name like any other.
    expect((await submit(tenant, [step({ id: "constructor" }), step({ id: "b", needs: ["constructor"], when: 'steps.constructor.status == "success"' })])).status).toBe(202);
  });
});

describe("bad commands", () => {
  it("are refused and leave nothing behind", async () => {
    const tenant = await still.tenant();
    await nothingWritten(async () => {
      for (const command of ["", "   ", "\n\t", "x".repeat(10_001), "x".repeat(1024 * 1024), 7, null, ["x"], {}])
        for (const path of ["/v1/tasks", "/v1/tasks?dry_run=true"])
          expectRefusal(await tenant.api("POST", path, { command }), "INVALID_INPUT", `${path} ${String(command).slice(0, 20)}`);
      expectRefusal(await tenant.api("POST", "/v1/tasks?dry_run=yes", { command: "x" }), "INVALID_INPUT");
      expectRefusal(await tenant.api("POST", "/v1/tasks?dryrun=true", { command: "x" }), "INVALID_INPUT");
      expectRefusal(await tenant.api("POST", "/v1/tasks", { command: "x".repeat(9 * 1024 * 1024) }), "PAYLOAD_TOO_LARGE");
    });
  });
});

describe("what a plugin depends on", () => {
  it("runs before it, in its highest release that fits, and holds a reservation of its own", async () => {
    const tenant = await still.tenant();
    const base = await publish({}, [tenant]);
    for (const version of ["1.4.0", "1.10.0", "2.0.0", "1.11.0-rc.1"]) await publish({}, [], { name: base, version });
    const name = await publish({ [base]: ">=1.2.0,<2.0.0" }, [tenant]);
    const answer = await tenant.api("POST", "/v1/tasks", { command: "say it", plugin: name });
    expect([answer.status, answer.body.plugin]).toEqual([202, name]);
    expect((await planOf(still, tenant))?.plan).toEqual([
      { id: base, plugin: base, version: "1.10.0", needs: [] },
      { id: "main", plugin: name, version: "1.0.0", needs: [base] },
    ]);
    expect(await usageOf(still, tenant)).toEqual({ [base]: [0, 1], [name]: [0, 1] });
  });

  it("needs its own subscription, a version that fits, and a tier that may chain", async () => {
    const [tenant, starter] = [await still.tenant(), await still.tenant({ tier: "starter" })];
    const base = await publish({}, [starter]);
    const name = await publish({ [base]: "^1" }, [tenant, starter]);
    const lost = await publish({ [base]: "^7", "not-there-yet": "*" }, [tenant]);
    await useUpSandbox(still, tenant, base);
    await nothingWritten(async () => {
      expect(expectRefusal(await tenant.api("POST", "/v1/tasks", { command: "x", plugin: name }), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: base });
      expect(expectRefusal(await tenant.api("POST", "/v1/tasks", { command: "x", plugin: lost }), "VERSION_UNSATISFIED")).toMatchObject({
        plugin: base,
        range: "^7",
        available: ["1.0.0"],
      });
      expectRefusal(await starter.api("POST", "/v1/tasks", { command: "x", plugin: name }), "CHAINING_NOT_INCLUDED");
    });
  });

  it("in a circle is refused when it is registered, with the path; so are ranges that are none, and oneself", async () => {
    const base = await publish({});
    const middle = await publish({ [base]: "*" });
    const top = await publish({ [middle]: "^1" });
    await nothingWritten(async () => {
      await expect(publish({ [top]: "*" }, [], { name: base, version: "1.1.0" })).rejects.toThrow(`${base} → ${top} → ${middle} → ${base}`);
      const self = `made-${count}`;
      await expect(publish({ [self]: "*" }, [], { name: self, version: "2.0.0" })).rejects.toThrow("INVALID_INPUT");
      await expect(publish({ [base]: "the newest" })).rejects.toThrow("INVALID_INPUT");
    });
    // What a plan would pick decides: this version of the top depends on nothing.
    await publish({}, [], { name: top, version: "1.1.0" });
    await publish({ [top]: "*" }, [], { name: base, version: "1.2.0" });
  });
});

describe("dry run", () => {
  it("shows the plan, the routing, the quota and the cost, and leaves nothing behind", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 5, filer: null } });
    await submit(tenant, CHAIN.slice(0, 1));
    await nothingWritten(async () => {
      const answer = await dryRun(tenant, { command: "say it", plan: CHAIN }, { "idempotency-key": "k", prefer: "wait=5" });
      expect([answer.status, answer.body]).toEqual([
        200,
        {
          status: "planned",
          plan: [
            { id: "first", plugin: "echo", version: "1.0.0", needs: [] },
            { id: "second", plugin: "filer", version: "1.0.0", needs: ["first"] },
          ],
          routing: { method: "explicit", confidence: 1, candidates: [], thresholds: { chain_threshold: expect.any(Number), confidence_min: expect.any(Number) } },
          quota: {
            echo: { used: 0, reserved: 1, limit: 5, remaining: 4, overage: false, sandbox: false },
            filer: { used: 0, reserved: 0, limit: null, remaining: null, overage: false, sandbox: false },
          },
          estimated_cost_usd: { low: "0.000000", high: "0.000000" },
        },
      ]);
      expect(answer.headers.get("location")).toBeNull();
    });
    // The key is still free for the submit itself.
    expect((await submit(tenant, CHAIN, {}, { "idempotency-key": "k" })).headers.get("idempotency-replayed")).toBeNull();
  });

  it("shows what a command would be routed to, and puts nothing into the cache", async () => {
    const tenant = await still.tenant();
    const command = "Echo these words back and repeat the sentence word for word";
    const routed = () => dryRun(tenant, { command });
    const first = (await routed()).body;
    expect(first).toMatchObject({ status: "planned", plan: [{ id: "main", plugin: "echo" }], routing: { method: "embedding" } });
    expect(first.routing.candidates[0]).toMatchObject({ plugin: "echo", score: expect.any(Number), probability: first.routing.confidence });
    expect((await routed()).body.routing.method).toBe("embedding");
    await tenant.api("POST", "/v1/tasks", { command });
    expect((await routed()).body.routing.method).toBe("cache");
  });

  it("answers as a submit would to a command that fits nothing", async () => {
    const tenant = await still.tenant();
    await nothingWritten(async () => void expectRefusal(await dryRun(tenant, { command: "what is the capital of France" }), "NO_MATCHING_PLUGIN"));
    expectRefusal(await dryRun(tenant, { command: "x", plugin: "no-such-plugin" }), "NOT_FOUND");
  });

  it("counts against the rate limit", async () => {
    const tenant = await still.tenant({ settings: { rate_limits: { per_tenant: 3, per_plugin: 100 } } });
    for (let i = 0; i < 3; i++) expect((await dryRun(tenant, { command: "x", plugin: "echo" })).status).toBe(200);
    expectRefusal(await dryRun(tenant, { command: "x", plugin: "echo" }), "RATE_LIMITED");
    const busy = await still.tenant({ settings: { rate_limits: { per_tenant: 100, per_plugin: 2 } } });
    for (let i = 0; i < 2; i++) expect((await submit(busy, CHAIN)).status).toBe(202);
    expectRefusal(await dryRun(busy, { command: "x", plan: CHAIN }), "RATE_LIMITED");
    expectRefusal(await busy.api("POST", "/v1/tasks", { command: "x", plugin: "filer" }), "RATE_LIMITED");
  });
});

describe("a command for two plugins", () => {
  const COMMAND = "Review this change and create a ticket for each issue";
  const reviewAndTickets = async (tenant: TestTenant) => {
    for (const { plugin, capabilities } of await readCatalogue())
      if (plugin === "code-review" || plugin === "ticket-processor") await publish({}, [tenant], { name: plugin, capabilities: [...capabilities] });
  };

  it("is a chain of both, shown by a dry run and admitted as it was shown", async () => {
    const tenant = await still.tenant();
    await reviewAndTickets(tenant);
    const shown = await dryRun(tenant, { command: COMMAND });
    expect([shown.status, shown.body.plan]).toEqual([
      200,
      [
        { id: "code-review", plugin: "code-review", version: "1.0.0", needs: [] },
        { id: "ticket-processor", plugin: "ticket-processor", version: "1.0.0", needs: ["code-review"] },
      ],
    ]);
    expect(shown.body.routing).toMatchObject({ method: "embedding", confidence: expect.any(Number) });
    expect(shown.body.routing.candidates.map((one: { plugin: string }) => one.plugin)).toEqual(expect.arrayContaining(["code-review", "ticket-processor"]));
    const answer = await tenant.api("POST", "/v1/tasks", { command: COMMAND });
    expect([answer.status, answer.body.plugin, answer.body.routing]).toEqual([202, "code-review", { method: "embedding", confidence: shown.body.routing.confidence }]);
    expect((await planOf(still, tenant))?.plan).toEqual([
      { id: "code-review", plugin: "code-review", version: "1.0.0", needs: [], command: "Review this change" },
      { id: "ticket-processor", plugin: "ticket-processor", version: "1.0.0", needs: ["code-review"], command: "create a ticket for each issue" },
    ]);
    expect(await usageOf(still, tenant)).toEqual({ "code-review": [0, 1], "ticket-processor": [0, 1] });
  });

  it("is refused in the starter tier, and is one execution where one plugin does it all", async () => {
    const starter = await still.tenant({ tier: "starter" });
    await reviewAndTickets(starter);
    await nothingWritten(async () => void expectRefusal(await starter.api("POST", "/v1/tasks", { command: COMMAND }), "CHAINING_NOT_INCLUDED"));
    expect((await starter.api("POST", "/v1/tasks", { command: "Review this change and summarise it" })).body.plugin).toBe("code-review");
    expect(await usageOf(still, starter)).toEqual({ "code-review": [0, 1] });
  });
});

it("a dry run of a command that may be for several plugins shows the question, and asks nobody", async () => {
  // With these lines, whatever names no plugin is a question.
  const asking = await startTestPlatform({ plugins: [echo, filer], withBridge: false, env: { CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0" } });
  try {
    const tenant = await asking.tenant({ subscriptions: { echo: null } });
    await expectNothingWritten(asking.env.DATABASE_URL ?? "", async () => {
      const { status, body } = await dryRun(tenant, { command: "Say it" });
      expect([status, body.status]).toEqual([200, "pending"]);
      const offer = (plugin: string, subscribed: boolean) => ({ plugin, plugins: [plugin], description: expect.any(String), confidence: expect.any(Number), subscribed });
      expect(body.input_request.question).toContain("echo");
      expect(body.input_request.candidates).toEqual(expect.arrayContaining([offer("echo", true), offer("filer", false)]));
    });
  } finally {
    await asking.stop();
  }
});

describe("the command's vector", () => {
  it("is stored with a task that was routed by embedding, and only with such", async () => {
    const tenant = await still.tenant();
    const command = "Repeat this sentence word for word and echo the words back";
    const stored = async (id: string) => {
      const client = new pg.Client({ connectionString: still.env.DATABASE_URL });
      await client.connect();
      const { rows } = await client.query("SELECT octet_length(command_embedding) AS bytes, command_embedding_model AS model FROM tasks ORDER BY id DESC LIMIT 1");
      await client.end();
      return [rows[0], id.length > 0];
    };
    const first = await tenant.api("POST", "/v1/tasks", { command });
    expect(await stored(first.body.task_id)).toEqual([{ bytes: 1536 * 4, model: "offline-hybrid-1" }, true]);
    const again = await tenant.api("POST", "/v1/tasks", { command });
    expect(again.body.routing.method).toBe("cache");
    expect(await stored(again.body.task_id)).toEqual([{ bytes: null, model: null }, true]);
  });
});
