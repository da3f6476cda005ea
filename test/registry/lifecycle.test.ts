import pg from "pg";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { advancePlugins, deprecatePlugin } from "../../shared/registry/plugin-lifecycle.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";
import { waiter } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

const GUIDE = "https://docs.example.com/move-to-the-new-one";
const DAY_MS = 86_400_000;

let platform: TestPlatform;
let admin: pg.Client;
let endpoint: string;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, waiter] });
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
  endpoint = (await admin.query("SELECT endpoint FROM plugin_versions v JOIN plugins p ON p.id = v.plugin_id WHERE p.name = 'echo'")).rows[0].endpoint;
});
afterAll(async () => {
  await admin?.end();
  await platform?.stop();
});

async function inside(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
  const answer = await fetch(`${platform.internalUrl}/internal/registry/${path}`, {
    method,
    headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, text, body: text === "" ? null : JSON.parse(text) };
}

let count = 0;
/** A plugin of the test's own that does what echo does, and a tenant that is subscribed to it and hears of its end. */
async function living(): Promise<{ name: string; tenant: TestTenant }> {
  const name = `mortal-${++count}`;
  expect((await inside("POST", "register", { manifest: { ...v.parse(Manifest, echo.manifest), name }, endpoint })).status).toBe(201);
  const tenant = await platform.tenant({ subscriptions: { [name]: null, waiter: null } });
  await admin.query(HEARS, [tenant.tenantId]);
  return { name, tenant };
}
const HEARS = `INSERT INTO webhooks (id, tenant_id, url, events, secret, secret_key_id) SELECT gen_random_uuid(), $1, 'https://hooks.example.com/x', '{plugin.deprecated}', '\\x00', 'k1'`;
const deprecate = (name: string, more: Record<string, unknown> = {}) => inside("POST", `${name}/lifecycle`, { status: "deprecated", migration_guide_url: GUIDE, ...more });
/** As if the 90 days had gone by. */
const passTime = (name: string) => admin.query("UPDATE plugins SET sunset_at = now() - interval '1 second' WHERE name = $1", [name]);
const statusOf = async (name: string) => (await inside("GET", name)).body.status;
const noticesTo = async (tenant: TestTenant) =>
  (
    await admin.query("SELECT d.data->>'status' AS status FROM webhook_deliveries d WHERE d.tenant_id = $1 AND d.type = 'plugin.deprecated' ORDER BY d.created_at", [
      tenant.tenantId,
    ])
  ).rows.map(({ status }) => status);
const isOpen = async (name: string) => (await admin.query("SELECT plugin_takes_subscriptions(id) AS open FROM plugins WHERE name = $1", [name])).rows[0].open;
const submit = (tenant: TestTenant, plugin: string) => tenant.api("POST", "/v1/tasks", { command: "hello", plugin }, { prefer: "wait=20" });

describe("a deprecated plugin", () => {
  it("works for another 90 days, and says in every result when it ends and what to do", async () => {
    const { name, tenant } = await living();
    expect((await submit(tenant, name)).body).toMatchObject({ deprecation_warning: null, migration_guide_url: null, warnings: [] });
    expect(await isOpen(name)).toBe(true);
    const answer = await deprecate(name);
    expect(answer.body).toMatchObject({ status: "deprecated", migration_guide_url: GUIDE });
    const days = (Date.parse(answer.body.sunset_at) - Date.now()) / DAY_MS;
    expect(days).toBeGreaterThan(89.9);
    expect(days).toBeLessThan(90.1);
    const { body } = await submit(tenant, name);
    expect(body).toMatchObject({ status: "success", result: "hello", migration_guide_url: GUIDE });
    expect(body.deprecation_warning).toContain(answer.body.sunset_at);
    expect(body.warnings.map(({ code }: { code: string }) => code)).toEqual(["PLUGIN_DEPRECATED"]);
    expect((await tenant.api("GET", `/v1/plugins/${name}`)).body.status).toBe("deprecated");
  });

  it("takes no new subscriptions", async () => {
    const { name } = await living();
    await deprecate(name);
    expect(await isOpen(name)).toBe(false);
    await inside("POST", `${name}/lifecycle`, { status: "active" });
    expect(await isOpen(name)).toBe(true);
  });

  it("is announced once to everyone who is subscribed, and to nobody else, however often it is asked for at once", async () => {
    const { name, tenant } = await living();
    const stranger = await living();
    const answers = await Promise.all(Array.from({ length: 10 }, () => deprecate(name)));
    expect(new Set(answers.map(({ body }) => body.sunset_at)).size).toBe(1);
    await deprecate(name);
    await platform.runCron("plugin-lifecycle");
    expect(await noticesTo(tenant)).toEqual(["deprecated"]);
    expect(await noticesTo(stranger.tenant)).toEqual([]);
  });

  it("is announced again whenever its end or its guide changes, and when it is taken back", async () => {
    const { name, tenant } = await living();
    const at = (days: number) => new Date(Date.now() + days * DAY_MS).toISOString();
    await deprecate(name);
    for (const change of [{ sunset_at: at(100) }, { migration_guide_url: `${GUIDE}/2` }, {}, {}]) await deprecate(name, change);
    for (let i = 0; i < 2; i++) await inside("POST", `${name}/lifecycle`, { status: "active" });
    await deprecate(name);
    await inside("POST", `${name}/lifecycle`, { status: "active" });
    const told = await admin.query<{ event: { status: string; sunset_at: string | null; migration_guide_url: string | null } }>(
      "SELECT data AS event FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY created_at",
      [tenant.tenantId],
    );
    expect(told.rows.map(({ event: { status, migration_guide_url } }) => [status, migration_guide_url])).toEqual([
      ["deprecated", GUIDE],
      ["deprecated", GUIDE],
      ["deprecated", `${GUIDE}/2`],
      ["deprecated", GUIDE],
      ["active", null],
      ["deprecated", GUIDE],
      ["active", null],
    ]);
    expect(new Set(told.rows.map(({ event }) => event.sunset_at)).size).toBe(4);
  });

  it("can get another guide and a later end, never an earlier one, nor less than 90 days", async () => {
    const { name } = await living();
    const at = (days: number) => new Date(Date.now() + days * DAY_MS).toISOString();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const sunset_at of [at(89), at(-1)]) expectRefusal(await deprecate(name, { sunset_at }), "INVALID_INPUT", sunset_at);
      for (const migration_guide_url of ["javascript:alert(1)", "http://user:pw@x", "nowhere"])
        expectRefusal(await deprecate(name, { migration_guide_url }), "INVALID_INPUT", migration_guide_url);
    });
    expect(await statusOf(name)).toBe("active");
    await deprecate(name, { sunset_at: at(100) });
    expectRefusal(await deprecate(name, { sunset_at: at(99) }), "INVALID_INPUT");
    const later = await deprecate(name, { sunset_at: at(200), migration_guide_url: `${GUIDE}/2` });
    expect(later.body).toMatchObject({ migration_guide_url: `${GUIDE}/2` });
    expect(Date.parse(later.body.sunset_at)).toBeGreaterThan(Date.now() + 199 * DAY_MS);
    expectRefusal(await deprecate("no-such-plugin"), "NOT_FOUND");
  });

  it("still takes new versions: what is used is mended", async () => {
    const { name } = await living();
    await deprecate(name);
    expect((await inside("POST", "register", { manifest: { ...v.parse(Manifest, echo.manifest), name, version: "1.0.1" }, endpoint })).body.status).toBe("active");
  });
});

describe("at its sunset a plugin", () => {
  it("takes no new tasks, and its subscriptions end; both are told once, also when two see to it at once", async () => {
    const { name, tenant } = await living();
    await deprecate(name);
    await platform.runCron("plugin-lifecycle");
    expect(await statusOf(name)).toBe("deprecated");
    await passTime(name);
    const moved = await Promise.all(Array.from({ length: 5 }, () => advancePlugins(platform.db)));
    const own = moved.flat().filter((step) => step.name === name);
    // Nothing was in flight, so a later one of the five may have retired it already.
    expect(own.filter(({ status }) => status === "sunset")).toEqual([expect.objectContaining({ subscriptions_ended: 1 })]);
    expect(own.filter(({ status }) => status === "retired").length).toBeLessThanOrEqual(1);
    await platform.runCron("plugin-lifecycle");
    expect(await noticesTo(tenant)).toEqual(["deprecated", "sunset", "retired"]);
    const { status, body } = await submit(tenant, name);
    expect([404, 403]).toContain(status);
    expect(body.task_id).toBeUndefined();
    expectRefusal(await deprecate(name), "CONFLICT");
    expectRefusal(await inside("POST", `${name}/lifecycle`, { status: "active" }), "CONFLICT");
    expectRefusal(await inside("POST", "register", { manifest: { ...v.parse(Manifest, echo.manifest), name, version: "9.0.0" }, endpoint }), "CONFLICT");
  });

  it("ends subscriptions as the platform's deed, in the tenant's audit log", async () => {
    const { name, tenant } = await living();
    await deprecate(name);
    await passTime(name);
    await platform.runCron("plugin-lifecycle");
    const [{ subscription_id }] = (await tenant.api("GET", `/v1/subscriptions?plugin=${name}`)).body.subscriptions;
    const { entries } = (await tenant.api("GET", "/v1/audit?action=subscription.ended")).body;
    expect(entries).toEqual([
      expect.objectContaining({ actor: "platform:plugin-lifecycle", key_id: null, target: { type: "subscription", id: subscription_id }, details: { plugin: name } }),
    ]);
  });

  it("lets what is in flight finish, and is retired when nothing is", async () => {
    const tenant = await platform.tenant();
    const { body } = await tenant.api("POST", "/v1/tasks", { command: "x", plugin: "waiter" });
    await expect.poll(async () => (await tenant.api("GET", `/v1/tasks/${body.task_id}`)).body.status, { timeout: 10_000 }).toBe("running");
    await deprecatePlugin(platform.db, "waiter", { sunsetAt: null, guideUrl: GUIDE });
    await passTime("waiter");
    for (let i = 0; i < 3; i++) await platform.runCron("plugin-lifecycle");
    expect(await statusOf("waiter")).toBe("sunset");
    expect((await inside("GET", "waiter")).body.versions).toMatchObject([{ tasks_in_flight: 1 }]);
    expect((await tenant.api("GET", `/v1/tasks/${body.task_id}`)).body.status).toBe("running");
    await tenant.api("DELETE", `/v1/tasks/${body.task_id}`);
    await tenant.api("GET", `/v1/tasks/${body.task_id}?wait=20`);
    await platform.runCron("plugin-lifecycle");
    expect((await inside("GET", "waiter")).body).toMatchObject({ status: "retired", versions: [{ status: "retired", tasks_in_flight: 0 }] });
    await platform.runCron("plugin-lifecycle");
    expect(await statusOf("waiter")).toBe("retired");
  });
});

describe("/internal", () => {
  it("does not exist on the public host, by any spelling", async () => {
    for (const path of [
      "/internal/registry/echo",
      "/internal/registry/register",
      "/%69nternal/registry/echo",
      "//internal/registry/echo",
      "/v1/../internal/registry/echo",
      "/INTERNAL/registry/echo",
      "/internal/chain/echo",
    ])
      for (const method of ["GET", "POST", "DELETE"]) {
        const answer = await fetch(`${platform.publicUrl}${path}`, { method, headers: { authorization: `Bearer ${platform.serviceToken}` } });
        expect([404, 405], `${method} ${path}`).toContain(answer.status);
        await answer.body?.cancel();
      }
  });
});
