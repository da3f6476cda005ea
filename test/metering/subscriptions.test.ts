import { Redis } from "ioredis";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tenantCommand } from "../../scripts/tenant.ts";
import { publicId } from "../../shared/ids.ts";
import { filer } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { quotaOf } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";

/** One platform whose tasks stay queued, and one that runs them. */
let still: TestPlatform;
let running: TestPlatform;
let admin: pg.Client;
beforeAll(async () => {
  [still, running] = await Promise.all([startTestPlatform({ plugins: [echo, filer, asker], withBridge: false }), startTestPlatform({ plugins: [echo] })]);
  admin = new pg.Client({ connectionString: still.env.DATABASE_URL });
  await admin.connect();
  // More plugins than any plan but the largest includes.
  await admin.query(
    `INSERT INTO plugins (id, name, category) SELECT gen_random_uuid(), 'extra-' || n, 'testing' FROM generate_series(1, 6) n;
     INSERT INTO plugin_versions (id, plugin_id, version, version_sort, manifest, endpoint)
       SELECT gen_random_uuid(), p.id, v.version, v.version_sort, jsonb_set(v.manifest, '{name}', to_jsonb(p.name)), v.endpoint
       FROM plugins p, plugin_versions v JOIN plugins e ON e.id = v.plugin_id WHERE e.name = 'echo' AND p.name LIKE 'extra-%'`,
  );
  await nextGeneration();
});
afterAll(async () => {
  await admin?.end();
  await Promise.all([still?.stop(), running?.stop()]);
});

const subscribe = (tenant: TestTenant, plugin: string, more: Record<string, unknown> = {}) => tenant.api("POST", "/v1/subscriptions", { plugin, ...more });
const submit = (tenant: TestTenant, plugin = "echo", headers: Record<string, string> = {}) => tenant.api("POST", "/v1/tasks", { command: "say it", plugin }, headers);
/** As a registration does that changes the catalogue. */
async function nextGeneration(): Promise<void> {
  const { rows } = await admin.query("UPDATE registry_state SET generation = generation + 1 RETURNING generation::text AS generation");
  const redis = new Redis(still.redis.url, { lazyConnect: true });
  await redis.connect();
  await redis.set("registry:gen", rows[0].generation);
  redis.disconnect();
}
const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(still.env.DATABASE_URL ?? "", work);

describe("the catalogue", () => {
  it("is searched by words and by category", async () => {
    const tenant = await still.tenant();
    const names = async (query: string) => (await tenant.api("GET", `/v1/plugins?${query}`)).body.plugins.map(({ name }: { name: string }) => name);
    expect(await names("q=Repeat%20WORD&category=testing")).toContain("echo");
    expect(await names("q=store%20file")).toEqual(["filer"]);
    expect(await names("q=no-such-word-anywhere")).toEqual([]);
    expect(await names("category=elsewhere")).toEqual([]);
  });
});

describe("the sandbox", () => {
  it("runs ten executions without a subscription, bills none, and says how many are left", async () => {
    const tenant = await running.tenant({ subscriptions: {} });
    expect((await tenant.api("GET", "/v1/plugins/echo")).body).toMatchObject({ subscribed: false, sandbox: { tries: 10, remaining: 10 } });
    const left: (string | null)[] = [];
    for (let i = 0; i < 10; i++) {
      const answer = await submit(tenant, "echo", { prefer: "wait=20" });
      expect(answer.body.status).toBe("success");
      left.push(answer.headers.get("aau-sandbox-remaining"));
    }
    expect(left).toEqual(["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]);
    expect(expectRefusal(await submit(tenant), "PLUGIN_NOT_SUBSCRIBED")).toMatchObject({ plugin: "echo", upgrade_url: expect.any(String) });
    expectRefusal(await tenant.api("POST", "/v1/tasks?dry_run=true", { command: "x", plugin: "echo" }), "PLUGIN_NOT_SUBSCRIBED");
    expect((await tenant.api("GET", "/v1/plugins/echo")).body.sandbox).toEqual({ tries: 10, remaining: 0 });
    const { body } = await tenant.api("GET", "/v1/usage");
    expect(body.total).toMatchObject({ executions: 10, billable: 0 });
    expect(body.quotas).toEqual([{ plugin: "echo", sandbox: true, period_start: null, used: 10, reserved: 0, limit: 10, remaining: 0, overage_enabled: false }]);
    expect((await tenant.api("GET", "/v1/invoices/preview")).body).toMatchObject({ lines: [], total_usd: "0.000000" });
  });

  it("admits ten of forty that come at once, and counts them once for all keys and months", async () => {
    const tenant = await still.tenant({ subscriptions: {} });
    const other = await tenant.mintKey({ environment: "test" });
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 ? submit(tenant) : still.call("POST", "/v1/tasks", { key: other.key, body: { command: "say it", plugin: "echo" } }))),
    );
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(10);
    expect(await quotaOf(still, tenant, "sandbox")).toEqual({ echo: [0, 10] });
    const [first] = (await tenant.api("GET", "/v1/tasks?limit=1")).body.tasks;
    await tenant.api("DELETE", `/v1/tasks/${first.task_id}`);
    expect(await quotaOf(still, tenant, "sandbox")).toEqual({ echo: [0, 9] });
  });

  it("is part of a plan of several steps, each step for itself", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: null } });
    const plan = [
      { id: "a", plugin: "echo" },
      { id: "b", plugin: "filer", needs: ["a"] },
    ];
    const dry = await tenant.api("POST", "/v1/tasks?dry_run=true", { command: "x", plan });
    expect(dry.body.quota).toMatchObject({ echo: { sandbox: false, limit: null }, filer: { sandbox: true, limit: 10, remaining: 10 } });
    expect((await tenant.api("POST", "/v1/tasks", { command: "x", plan })).status).toBe(202);
    expect([await quotaOf(still, tenant), await quotaOf(still, tenant, "sandbox")]).toEqual([{ echo: [0, 1] }, { filer: [0, 1] }]);
  });
});

describe("a subscription", () => {
  it("that has ended in a month leaves the free executions that were not used", async () => {
    const tenant = await still.tenant({ subscriptions: { echo: 5 } });
    expect((await submit(tenant)).status).toBe(202);
    const [{ subscription_id: id }] = (await tenant.api("GET", "/v1/subscriptions")).body.subscriptions;
    await tenant.api("DELETE", `/v1/subscriptions/${id}`);
    const tried = await submit(tenant);
    expect([tried.status, tried.headers.get("aau-sandbox-remaining")]).toEqual([202, "9"]);
    expect([await quotaOf(still, tenant), await quotaOf(still, tenant, "sandbox")]).toEqual([{ echo: [0, 1] }, { echo: [0, 1] }]);
  });

  it("holds from the next admission on, and so does its end; coming back goes on with the same month", async () => {
    const tenant = await running.tenant({ subscriptions: {} });
    for (let i = 0; i < 10; i++) await submit(tenant, "echo", { prefer: "wait=20" });
    expectRefusal(await submit(tenant), "PLUGIN_NOT_SUBSCRIBED");
    const made = await subscribe(tenant, "echo");
    expect([made.status, made.body]).toMatchObject([
      201,
      { plugin: "echo", tier: "professional", status: "active", ended_at: null, quota: { limit: 1000, used: 0, reserved: 0, remaining: 1000, overage_enabled: false } },
    ]);
    expect((await submit(tenant, "echo", { prefer: "wait=20" })).body.status).toBe("success");
    expect((await tenant.api("GET", "/v1/plugins/echo")).body).toMatchObject({ subscribed: true, sandbox: null });
    expect((await tenant.api("GET", "/v1/subscriptions")).body.subscriptions[0].quota).toMatchObject({ used: 1, remaining: 999 });

    const path = `/v1/subscriptions/${made.body.subscription_id}`;
    expect((await tenant.api("DELETE", path)).status).toBe(204);
    expectRefusal(await submit(tenant), "PLUGIN_NOT_SUBSCRIBED");
    expect((await tenant.api("DELETE", path)).status).toBe(204);
    const again = await subscribe(tenant, "echo");
    expect([again.status, again.body.quota.used]).toEqual([201, 1]);
    const { subscriptions } = (await tenant.api("GET", "/v1/subscriptions")).body;
    expect(subscriptions.map(({ status }: { status: string }) => status)).toEqual(["active", "ended"]);
    expect((await tenant.api("GET", "/v1/subscriptions?status=ended")).body.subscriptions).toHaveLength(1);
  });

  it("is refused twice, for what is unknown or deprecated, and for overage that the plan does not have; then nothing is written", async () => {
    const [tenant, starter] = [await still.tenant({ subscriptions: { echo: null } }), await still.tenant({ tier: "starter", subscriptions: {} })];
    await admin.query("UPDATE plugins SET status = 'deprecated' WHERE name = 'extra-6'");
    await nothingWritten(async () => {
      expect(expectRefusal(await subscribe(tenant, "echo"), "CONFLICT")).toMatchObject({ subscription_id: expect.stringMatching(/^sub_/) });
      expectRefusal(await subscribe(tenant, "no-such-plugin"), "NOT_FOUND");
      expect(expectRefusal(await subscribe(tenant, "extra-6"), "CONFLICT").message).toContain("deprecated");
      expectRefusal(await subscribe(starter, "echo", { overage_enabled: true }), "CONFLICT");
      expectRefusal(await submit(tenant, "extra-6"), "PLUGIN_NOT_SUBSCRIBED");
    });
  });

  it.each([
    ["starter", 1],
    ["professional", 5],
    ["enterprise", 7],
  ] as const)("of the %s plan comes to %i of seven that are asked for at once", async (tier, right) => {
    const tenant = await still.tenant({ tier, subscriptions: {} });
    const plugins = ["echo", "filer", "extra-1", "extra-2", "extra-3", "extra-4", "extra-5"];
    const answers = await Promise.all(plugins.map((plugin) => subscribe(tenant, plugin)));
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(right);
    for (const answer of answers.filter(({ status }) => status !== 201))
      expect(expectRefusal(answer, "PLUGIN_LIMIT_REACHED")).toMatchObject({ plugins_included: right, upgrade_url: expect.any(String) });
    const active = (await tenant.api("GET", "/v1/subscriptions?status=active")).body.subscriptions;
    expect(active).toHaveLength(right);
    if (tier === "enterprise") return;
    // A place that becomes free is taken once.
    await tenant.api("DELETE", `/v1/subscriptions/${active[0].subscription_id}`);
    const next = await Promise.all(plugins.map((plugin) => subscribe(tenant, plugin)));
    expect(next.filter(({ status }) => status === 201)).toHaveLength(1);
  });
});

describe("a change of plan", () => {
  async function setTier(platform: TestPlatform, { tenantId }: TestTenant, tier: string): Promise<{ code: number; said: string }> {
    const said: string[] = [];
    const code = await tenantCommand(["set-tier", "--tenant", publicId("tenant", tenantId), "--tier", tier], platform.env, {
      result: () => {},
      say: (line) => said.push(line),
    });
    return { code, said: said.join("\n") };
  }
  const live = async (tenant: TestTenant) => (await tenant.api("GET", "/v1/subscriptions?status=active")).body.subscriptions;

  it("moves what is subscribed to: quota, overage and prices are the new plan's, and what was used counts on", async () => {
    const tenant = await running.tenant({ tier: "enterprise", subscriptions: { echo: null } });
    for (let i = 0; i < 2; i++) expect((await submit(tenant, "echo", { prefer: "wait=20" })).body.status).toBe("success");
    expect(await setTier(running, tenant, "professional")).toMatchObject({ code: 0, said: expect.stringContaining("go on under professional: echo.") });
    expect(await live(tenant)).toMatchObject([{ tier: "professional", quota: { limit: 1000, used: 2, remaining: 998, overage_enabled: false } }]);
    await running.db.call("UPDATE subscriptions SET quota_limit = 2, overage_enabled = true WHERE tenant_id = $1 AND ended_at IS NULL", [tenant.tenantId]);
    expect((await submit(tenant, "echo", { prefer: "wait=20" })).body.status).toBe("success");
    expect((await setTier(running, tenant, "starter")).code).toBe(0);
    expect(await live(tenant)).toMatchObject([{ tier: "starter", quota: { limit: 100, used: 3, overage_enabled: false } }]);
    expect((await submit(tenant, "echo", { prefer: "wait=20" })).body.status).toBe("success");

    const { lines } = (await tenant.api("GET", "/v1/invoices/preview")).body;
    const shown = lines.filter(({ kind }: { kind: string }) => kind !== "plan_fee" && kind !== "plugin_fee");
    expect(shown.map((line: Record<string, unknown>) => [line.kind, line.quantity, line.amount_usd])).toEqual([
      ["executions", 1, "0.000000"],
      ["overage", 1, "0.020000"],
      ["volume", 2, "0.030000"],
    ]);
    // One day has one plan, the last one, and so has its subscription.
    const now = new Date();
    const left = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate() - now.getUTCDate() + 1;
    expect(lines.filter(({ kind }: { kind: string }) => kind === "plugin_fee").map(({ quantity }: { quantity: number }) => quantity)).toEqual([left]);
    expect(lines.filter(({ kind }: { kind: string }) => kind === "plan_fee")).toEqual([]);

    const { entries } = (await tenant.api("GET", "/v1/audit?actor=operator")).body;
    expect(entries.map(({ action, details }: { action: string; details: Record<string, unknown> }) => [action, details.plugin ?? details.to, details.tier])).toEqual([
      ["tenant.tier_set", "starter", undefined],
      ["subscription.created", "echo", "starter"],
      ["subscription.ended", "echo", undefined],
      ["tenant.tier_set", "professional", undefined],
      ["subscription.created", "echo", "professional"],
      ["subscription.ended", "echo", undefined],
    ]);
  });

  it("to a smaller one is refused while more is subscribed to than that includes, and names it; then nothing is written", async () => {
    const tenant = await still.tenant({ tier: "professional", subscriptions: {} });
    for (const plugin of ["echo", "filer", "extra-2"]) expect((await subscribe(tenant, plugin)).status).toBe(201);
    const [first, second] = await live(tenant);
    await nothingWritten(async () => {
      const { code, said } = await setTier(still, tenant, "starter");
      expect(code).toBe(1);
      expect(said).toMatch(/subscribed to 3 plugins, and starter includes 1\. End first 2 of: echo \(sub_\w+\), extra-2 \(sub_\w+\), filer \(sub_\w+\)\./);
    });
    expect(await live(tenant)).toHaveLength(3);
    for (const { subscription_id } of [first, second]) await tenant.api("DELETE", `/v1/subscriptions/${subscription_id}`);
    expect((await setTier(still, tenant, "starter")).code).toBe(0);
    expect(await live(tenant)).toMatchObject([{ plugin: "echo", tier: "starter", quota: { limit: 100 } }]);
  });

  it("away from enterprise is refused while a plugin of the tenant's own is subscribed to, which afterwards cannot be", async () => {
    const tenant = await still.tenant({ tier: "enterprise", subscriptions: {} });
    await admin.query("UPDATE plugins SET owner_tenant_id = $1, owner_type = 'enterprise_custom' WHERE name = 'extra-5'", [tenant.tenantId]);
    await nextGeneration();
    const { subscription_id } = (await subscribe(tenant, "extra-5")).body;
    expect(await setTier(still, tenant, "professional")).toMatchObject({ code: 1, said: expect.stringContaining(`End first: extra-5 (${subscription_id}).`) });
    await tenant.api("DELETE", `/v1/subscriptions/${subscription_id}`);
    expect((await setTier(still, tenant, "professional")).code).toBe(0);
    expect(expectRefusal(await subscribe(tenant, "extra-5"), "CONFLICT").message).toContain("no plugins of your own");
  });
});

describe("a plugin that belongs to one tenant", () => {
  let owner: TestTenant;
  let stranger: TestTenant;
  const NAME = "extra-1";
  beforeAll(async () => {
    [owner, stranger] = [await still.tenant({ tier: "enterprise", subscriptions: {} }), await still.tenant({ tier: "enterprise", subscriptions: {} })];
    await admin.query("UPDATE plugins SET owner_tenant_id = $1, owner_type = 'enterprise_custom' WHERE name = $2", [owner.tenantId, NAME]);
    await admin.query(
      `UPDATE plugin_versions SET manifest = jsonb_set(manifest, '{capabilities}', '["Brew a cup of camomile tea for the board."]') WHERE plugin_id = (SELECT id FROM plugins WHERE name = $1)`,
      [NAME],
    );
    await nextGeneration();
  });

  it("is like any other for its owner", async () => {
    expect((await subscribe(owner, NAME)).status).toBe(201);
    expect((await owner.api("GET", `/v1/plugins/${NAME}`)).body).toMatchObject({ name: NAME, subscribed: true });
    expect((await submit(owner, NAME)).status).toBe(202);
    const routed = await owner.api("POST", "/v1/tasks?dry_run=true", { command: "Brew a cup of camomile tea for the board." });
    expect(JSON.stringify(routed.body)).toContain(NAME);
  });

  it("is nothing to all others: not listed, not routed to, not subscribed to, and in no answer", async () => {
    const unknown = "extra-none";
    const at = (path: string, name: string) => path.replace("NAME", name);
    const calls: [string, string, unknown?][] = [
      ["GET", "/v1/plugins/NAME"],
      ["GET", "/v1/plugins/NAME/health"],
      ["GET", "/v1/plugins/NAME/config"],
      ["PUT", "/v1/plugins/NAME/config", { config: {} }],
      ["GET", "/v1/plugins/NAME/secrets"],
      ["PUT", "/v1/plugins/NAME/secrets/token", { value: "v" }],
      ["POST", "/v1/subscriptions", { plugin: "NAME" }],
      ["POST", "/v1/tasks", { command: "x", plugin: "NAME" }],
      ["POST", "/v1/tasks?dry_run=true", { command: "x", plugin: "NAME" }],
      ["POST", "/v1/tasks", { command: "x", plan: [{ id: "a", plugin: "NAME" }] }],
    ];
    await nothingWritten(async () => {
      for (const [method, path, body] of calls) {
        const ask = async (name: string) => {
          const answer = await stranger.api(method, at(path, name), body === undefined ? undefined : JSON.parse(at(JSON.stringify(body), name)));
          return { status: answer.status, text: answer.text.replaceAll(name, "NAME").replace(/req_\w+/g, "") };
        };
        expect(await ask(NAME), `${method} ${path}`).toEqual(await ask(unknown));
      }
      const said = [
        await stranger.api("GET", "/v1/plugins"),
        await stranger.api("GET", "/v1/plugins?q=camomile"),
        await stranger.api("POST", "/v1/tasks?dry_run=true", { command: "Brew a cup of camomile tea for the board." }),
        await stranger.api("GET", "/v1/usage"),
        await stranger.api("GET", "/v1/subscriptions"),
        await still.call("GET", "/openapi.json"),
      ];
      for (const answer of said) expect(answer.text).not.toMatch(/extra-1\b|camomile/);
    });
    expect((await owner.api("GET", "/v1/plugins?q=camomile")).body.plugins).toHaveLength(1);
  });

  it("is not reached by a statement of another tenant's role, whatever the code asks", async () => {
    const seen = async (tenant: TestTenant) => still.db.tenant(tenant.tenantId, (tx) => tx.selectFrom("plugins").select("name").where("name", "=", NAME).execute());
    expect([await seen(owner), await seen(stranger)]).toEqual([[{ name: NAME }], []]);
    const rows = await still.db.call("SELECT outcome FROM subscribe($1, gen_random_uuid(), $2, false, '{}')", [stranger.tenantId, NAME]);
    expect(rows).toEqual([{ outcome: "unknown" }]);
  });
});
