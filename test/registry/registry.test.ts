import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filer, walker } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { sayCode, sayStatus, startWellService, type WellService } from "../support/well-service.ts";

let platform: TestPlatform;
let tenant: TestTenant;
let service: WellService;
beforeAll(async () => {
  service = await startWellService();
  platform = await startTestPlatform({ plugins: [echo, filer], withBridge: false });
  tenant = await platform.tenant();
});
afterAll(async () => {
  await platform?.stop();
  await service?.stop();
});

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
const register = (changes: Record<string, unknown> = {}, endpoint = service.url) => inside("POST", "/internal/registry/register", { manifest: manifest(changes), endpoint });
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
    // A known version is where it says it is; whether it is well there, the next probe finds.
    const again = await register({}, "http://127.0.0.1:10");
    expect([again.status, again.body]).toEqual([200, { ...first.body, health: "unknown" }]);
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

  it("takes six registrations of one version at once for one", async () => {
    const name = fresh();
    const answers = await Promise.all(Array.from({ length: 6 }, () => register()));
    expect(answers.filter(({ status }) => status >= 400).map(({ text }) => text)).toEqual([]);
    expect(answers.map((answer) => answer.status).filter((status) => status === 201)).toHaveLength(1);
    expect(new Set(answers.flatMap(({ body }) => body.plugin_id ?? [])).size).toBe(1);
    expect(await versionOf(name)).toBe("1.0.0");
  });

  it("lets nothing come to a version before it is seen healthy", async () => {
    const name = fresh();
    const isThere = async () => (await tenant.api("GET", `/v1/plugins/${name}`)).status === 200;
    for (const [says, health] of [
      [sayStatus("unhealthy"), "unhealthy"],
      [sayStatus("degraded"), "degraded"],
      [sayStatus("splendid"), "unhealthy"],
      [sayCode(500), "unhealthy"],
      [sayCode(503), "asleep"],
    ] as const) {
      service.says(says);
      expect((await register()).body).toMatchObject({ status: "pending", health });
      await platform.runCron("plugin-probe");
      expect(await isThere(), health).toBe(false);
    }
    // What it says of itself is not what the platform has seen.
    await inside("POST", `/internal/registry/${name}/health`, { status: "healthy" });
    expect(await isThere()).toBe(false);
    expectRefusal(await tenant.api("POST", "/v1/tasks", { command: "x", plugin: name }), "NOT_FOUND");
    service.says(sayStatus("healthy"));
    await platform.runCron("plugin-probe");
    expect(await isThere()).toBe(true);
  });

  it("takes one only of two that close a circle and come at once", async () => {
    const names = [fresh(), fresh()] as const;
    service.says(sayStatus("healthy"));
    const answers = await Promise.all(names.map((name, i) => register({ name, dependencies: [{ name: names[1 - i], version: "*" }] })));
    const [refused] = answers.filter(({ status }) => status !== 201);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expectRefusal(refused as ApiAnswer, "CIRCULAR_DEPENDENCY");
  });

  it("lets work come to one only of two that close a circle and were both accepted before either was well", async () => {
    const names = [fresh(), fresh()] as const;
    service.says(sayStatus("unhealthy"));
    const both = () => Promise.all(names.map((name, i) => register({ name, dependencies: [{ name: names[1 - i], version: "*" }] })));
    expect((await both()).map(({ status, body }) => [status, body.status])).toEqual([201, 201].map((status) => [status, "pending"]));
    service.says(sayStatus("healthy"));
    await platform.runCron("plugin-probe");
    const there = await Promise.all(names.map(async (name) => (await tenant.api("GET", `/v1/plugins/${name}`)).status));
    expect(there.toSorted()).toEqual([200, 404]);
    const answers = await both();
    expect(answers[there.indexOf(200)]?.status).toBe(200);
    expectRefusal(answers[there.indexOf(404)] as ApiAnswer, "CIRCULAR_DEPENDENCY");
  });

  it("keeps the version before it at work while the new one is not well", async () => {
    const name = fresh();
    await register();
    service.says(sayStatus("unhealthy"));
    await register({ version: "2.0.0" });
    expect(await versionOf(name)).toBe("1.0.0");
    service.says(sayStatus("healthy"));
    await platform.runCron("plugin-probe");
    expect(await versionOf(name)).toBe("2.0.0");
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
        { required_scopes: ["secrets:token"] },
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
    expect((await tenant.api("GET", `/v1/plugins/${name}/health`)).body).toMatchObject({ status: "healthy", checked_at: expect.any(String) });
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

describe("plugin-probe", () => {
  const circuitOf = async (name: string) => (await tenant.api("GET", `/v1/plugins/${name}`)).body.circuit;
  /** As if five minutes had gone by. */
  async function probe(name: string): Promise<void> {
    await platform.db.platform((tx) =>
      tx
        .updateTable("plugin_versions")
        .set({ probed_at: null })
        .where("plugin_id", "in", (sub) => sub.selectFrom("plugins").select("id").where("name", "=", name))
        .execute(),
    );
    await platform.runCron("plugin-probe");
  }

  it("opens the circuit at the third unhealthy answer in a row, and not at two", async () => {
    const name = fresh();
    await register();
    service.says(sayStatus("unhealthy"));
    for (const circuit of ["closed", "closed"]) {
      await probe(name);
      expect(await circuitOf(name)).toBe(circuit);
    }
    service.says(sayStatus("healthy"));
    await probe(name);
    service.says(sayStatus("unhealthy"));
    for (const circuit of ["closed", "closed", "open"]) {
      await probe(name);
      expect(await circuitOf(name)).toBe(circuit);
    }
    service.says(sayStatus("healthy"));
  });

  it("does not take a plugin that sleeps for one that is ill, however long it sleeps", async () => {
    const name = fresh();
    await register();
    const asleep = [sayCode(503), sayCode(502), sayCode(404), sayCode(429), sayCode(504)];
    for (const says of asleep) {
      service.says(says);
      await probe(name);
    }
    service.says(sayStatus("healthy"));
    const gone = await startWellService();
    await register({}, gone.url);
    await gone.stop();
    for (let i = 0; i < 4; i++) await probe(name);
    expect(await circuitOf(name)).toBe("closed");
    expect((await tenant.api("GET", `/v1/plugins/${name}/health`)).body.status).toBe("healthy");
  });

  it("waits for one that is woken by the question", async () => {
    const name = fresh();
    service.says((response) => void setTimeout(() => sayStatus("healthy")(response), 300));
    expect((await register()).body.status).toBe("active");
    service.says(sayStatus("healthy"));
    expect(await versionOf(name)).toBe("1.0.0");
  });

  it("asks a plugin that it knows only every few minutes", async () => {
    fresh();
    await register();
    await platform.runCron("plugin-probe");
    const before = service.asked;
    await platform.runCron("plugin-probe");
    expect(service.asked).toBe(before);
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
