import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filer, walker } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer], withBridge: false });
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

async function inside(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
  const answer = await fetch(`${platform.internalUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${platform.serviceToken}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, text, body: text === "" ? null : JSON.parse(text) };
}

let count = 0;
/** A plugin of the test's own, so that no test sees another's. */
const manifest = (changes: Record<string, unknown> = {}) => ({ ...walker.manifest, name: `sample-${count}`, ...changes });
const register = (changes: Record<string, unknown> = {}, endpoint = "http://127.0.0.1:9") =>
  inside("POST", "/internal/registry/register", { manifest: manifest(changes), endpoint });
const fresh = () => `sample-${++count}`;
const versionOf = async (name: string) => {
  const answer = await tenant.api("GET", `/v1/plugins/${name}`);
  expect(answer.status, answer.text).toBe(200);
  return answer.body.version;
};

describe("registry-register", () => {
  it("makes a version known to the very next request, and can be repeated", async () => {
    const name = fresh();
    expectRefusal(await tenant.api("GET", `/v1/plugins/${name}`), "NOT_FOUND");
    const first = await register();
    expect(first.status).toBe(201);
    expect(await versionOf(name)).toBe("1.0.0");
    const again = await register({}, "http://127.0.0.1:10");
    expect([again.status, again.body]).toEqual([200, first.body]);
  });

  it("refuses another manifest under a version that is known", async () => {
    const name = fresh();
    await register();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      expectRefusal(await register({ description: "Says something else now." }), "CONFLICT");
    });
    expect((await tenant.api("GET", `/v1/plugins/${name}`)).body.description).toBe(walker.manifest.description);
  });

  it("routes to the newest release, whatever came last, and to a pre-release only where there is no other", async () => {
    const name = fresh();
    for (const [version, shown] of [
      ["2.0.0-rc.1", "2.0.0-rc.1"],
      ["1.9.0", "1.9.0"],
      ["1.10.0", "1.10.0"],
      ["1.2.0", "1.10.0"],
      ["2.0.0-rc.2", "1.10.0"],
      ["2.0.0", "2.0.0"],
    ] as const) {
      expect((await register({ version })).status).toBe(201);
      expect(await versionOf(name), version).toBe(shown);
      expect((await tenant.api("GET", `/v1/plugins/${name}/health`)).body.version, version).toBe(shown);
    }
  });

  it("takes ten registrations of one version at once for one", async () => {
    const name = fresh();
    const answers = await Promise.all(Array.from({ length: 10 }, () => register()));
    expect(answers.map((answer) => answer.status).filter((status) => status === 201)).toHaveLength(1);
    expect(new Set(answers.map((answer) => JSON.stringify(answer.body))).size).toBe(1);
    expect(await versionOf(name)).toBe("1.0.0");
  });

  it("refuses manifests and addresses that are none, and writes nothing", async () => {
    fresh();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const wrong: Record<string, unknown>[] = [
        { name: "A" },
        { name: "x" },
        { name: "pl\u0430gin" },
        { version: "1" },
        { version: "1.0.0; DROP" },
        { capabilities: [] },
        { capabilities: ["x"] },
        { capabilities: Array(51).fill("too many") },
        { description: "" },
        { required_scopes: ["everything"] },
        { envelope_version: "9.9" },
        { timeout_seconds: 0 },
        { token_budget: -1 },
        { estimated_latency: "never" },
      ];
      for (const changes of wrong) expectRefusal(await register(changes), "INVALID_INPUT", JSON.stringify(changes));
      for (const endpoint of ["", "ftp://x", "http://user:pass@host", "http://host/path", "http://host?x=1", "http://host#x", "javascript:alert(1)", "not a url"])
        expectRefusal(await register({}, endpoint), "INVALID_INPUT", endpoint);
    });
  });
});

describe("registry-deregister", () => {
  it("brings the version before it back, and the plugin to an end with its last one", async () => {
    const name = fresh();
    await register();
    await register({ version: "1.1.0" });
    expect((await inside("DELETE", `/internal/registry/${name}/1.1.0`)).status).toBe(204);
    expect(await versionOf(name)).toBe("1.0.0");
    expect((await inside("DELETE", `/internal/registry/${name}/1.0.0`)).status).toBe(204);
    expectRefusal(await tenant.api("GET", `/v1/plugins/${name}`), "NOT_FOUND");
    expectRefusal(await tenant.api("POST", "/v1/tasks", { command: "x", plugin: name }), "NOT_FOUND");
    expect((await register()).status).toBe(200);
    expect(await versionOf(name)).toBe("1.0.0");
  });

  it("answers 404 to what was never there", async () => {
    for (const path of ["no-such-plugin/1.0.0", "echo/9.9.9", "echo/x", "%00/1.0.0"]) expectRefusal(await inside("DELETE", `/internal/registry/${path}`), "NOT_FOUND", path);
  });
});

describe("registry-report-health", () => {
  it("shows what was reported, to the next reader", async () => {
    const name = fresh();
    await register();
    expect((await tenant.api("GET", `/v1/plugins/${name}/health`)).body).toMatchObject({ status: "unknown", checked_at: null });
    for (const status of ["unhealthy", "degraded", "healthy"]) {
      const report = { status, components: { github: status }, message: `it is ${status}` };
      expect((await inside("POST", `/internal/registry/${name}/health`, report)).status).toBe(200);
      expect((await tenant.api("GET", `/v1/plugins/${name}/health`)).body).toMatchObject({ ...report, checked_at: expect.any(String) });
      expect((await tenant.api("GET", `/v1/plugins/${name}`)).body.health).toBe(status);
    }
    expectRefusal(await inside("POST", "/internal/registry/no-such-plugin/health", { status: "healthy" }), "NOT_FOUND");
  });

  it("moves the registry's generation only when the status changes", async () => {
    const name = fresh();
    await register();
    const generation = async () => (await platform.db.call<{ generation: string }>("SELECT generation::text AS generation FROM registry_state", []))[0]?.generation;
    await inside("POST", `/internal/registry/${name}/health`, { status: "healthy" });
    const before = await generation();
    for (let i = 0; i < 3; i++) await inside("POST", `/internal/registry/${name}/health`, { status: "healthy", message: `${i}` });
    expect(await generation()).toBe(before);
    await inside("POST", `/internal/registry/${name}/health`, { status: "degraded" });
    expect(await generation()).not.toBe(before);
  });
});

describe("plugin-list", () => {
  it("finds by words and category, and says what the tenant has", async () => {
    const names = async (query: string) => (await tenant.api("GET", `/v1/plugins${query}`)).body.plugins.map((plugin: { name: string }) => plugin.name);
    expect(await names("?q=REPEAT%20sentence")).toEqual(["echo"]);
    expect(await names("?q=store%20file")).toEqual(["filer"]);
    expect(await names("?category=nothing")).toEqual([]);
    expect(await names("?q=%25")).toEqual([]);
    const all = (await tenant.api("GET", "/v1/plugins?category=testing")).body.plugins;
    expect(all.map((plugin: { name: string }) => plugin.name)).toEqual(all.map((plugin: { name: string }) => plugin.name).toSorted());
    const other = await platform.tenant({ subscriptions: { filer: null } });
    const seen = (await other.api("GET", "/v1/plugins")).body.plugins;
    expect(
      Object.fromEntries(seen.filter((p: { name: string }) => ["echo", "filer"].includes(p.name)).map((p: { name: string; subscribed: boolean }) => [p.name, p.subscribed])),
    ).toEqual({ echo: false, filer: true });
  });

  it("tells nobody where a plugin listens", async () => {
    for (const path of ["/v1/plugins", "/v1/plugins/echo", "/v1/plugins/echo/health"]) expect((await tenant.api("GET", path)).text).not.toMatch(/127\.0\.0\.1|endpoint/);
  });
});
