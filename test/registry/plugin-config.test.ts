import * as v from "valibot";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { configIssues } from "../../shared/registry/config-issues.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";
import { keeper, walker } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, keeper] });
});
beforeEach(async () => {
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

const get = (plugin = "keeper") => tenant.api("GET", `/v1/plugins/${plugin}/config`);
const put = (config: unknown, { plugin = "keeper", version }: { plugin?: string; version?: string } = {}) =>
  tenant.api("PUT", `/v1/plugins/${plugin}/config`, { config }, version === undefined ? {} : { "if-match": version });
const tell = async () => (await tenant.api("POST", "/v1/tasks", { command: "tell", plugin: "keeper" }, { prefer: "wait=20" })).body.result;
const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(platform.env.DATABASE_URL ?? "", work);

describe("a tenant's configuration of a plugin", () => {
  it("is empty at first, and holds for the next task once it is set", async () => {
    const first = await get();
    expect(first.body).toEqual({ plugin: "keeper", config: {}, version: 0, updated_at: null });
    expect(await tell()).toMatch(/ short$/);
    const set = await put({ style: "long" });
    expect([set.status, set.body]).toEqual([200, { plugin: "keeper", config: { style: "long" }, version: 1, updated_at: expect.any(String) }]);
    expect(await tell()).toMatch(/ long$/);
    expect((await get()).body).toEqual(set.body);
    expect((await put({})).body).toMatchObject({ config: {}, version: 2 });
    expect(await tell()).toMatch(/ short$/);
  });

  it.each<[string, unknown, string, string]>([
    ["a value that is none of those there are", { style: "hunter2" }, "config.style", 'must be equal to one of the allowed values: "short","long"'],
    ["a wrong type", { names: "aa" }, "config.names", "must be array"],
    ["an unknown setting", { colour: "hunter2" }, "config.colour", "is not a known setting"],
    ["a text against its pattern", { names: ["hunter2"] }, "config.names.0", 'must match pattern "^(a+)+$"'],
  ])("is refused with %s, by its place and without the value", async (_, config, path, message) => {
    await put({ style: "long" });
    await nothingWritten(async () => {
      const answer = await put(config);
      expect(expectRefusal(answer, "INVALID_INPUT")).toMatchObject({ message: `keeper does not take this configuration: ${path}: ${message}`, issues: [{ path, message }] });
      expect(answer.text).not.toContain("hunter2");
    });
    expect((await get()).body.config).toEqual({ style: "long" });
  });

  it.each([[null], [[]], [[1]], ["text"], [7]])("is refused when it is %j", async (config) => {
    await nothingWritten(async () => void expectRefusal(await put(config), "INVALID_INPUT"));
  });

  it("may be any object for a plugin that describes none, up to 64 kB", async () => {
    const config = { any: [1, { thing: null }], toString: "x", hasOwnProperty: 1 };
    expect((await put(config, { plugin: "echo" })).status).toBe(200);
    expect((await get("echo")).body.config).toEqual(config);
    await nothingWritten(async () => void expectRefusal(await put({ a: "x".repeat(64 * 1024) }, { plugin: "echo" }), "PAYLOAD_TOO_LARGE"));
  });

  it("is replaced only where it is the one that If-Match names", async () => {
    expect((await get()).headers.get("etag")).toBe('"0"');
    expect((await put({}, { version: '"0"' })).headers.get("etag")).toBe('"1"');
    for (const version of ['"0"', '"2"', '"999999999999999"']) expectRefusal(await put({ style: "long" }, { version }), "CONFLICT");
    for (const version of ["1", "*", 'W/"1"', '"1", "2"', '"-1"', '"1e3"', '"9999999999999999999999"']) expectRefusal(await put({ style: "long" }, { version }), "INVALID_INPUT");
    const answers = await Promise.all(Array.from({ length: 8 }, () => put({ style: "long" }, { version: '"1"' })));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array(7).fill(409)]);
    expect((await get()).body.version).toBe(2);
  });

  it("counts every change when many come at once", async () => {
    await Promise.all(Array.from({ length: 8 }, () => put({})));
    expect((await get()).body.version).toBe(8);
  });

  it("belongs to its tenant", async () => {
    await put({ style: "long" });
    tenant = await platform.tenant();
    expect((await get()).body).toMatchObject({ config: {}, version: 0 });
    expect(await tell()).toMatch(/ short$/);
  });

  it("asks for its own scope, and for a plugin that is there", async () => {
    const { key } = await tenant.mintKey({ scopes: ["plugins:read", "secrets:admin", "tasks:write"] });
    for (const [method, body] of [["GET"], ["PUT", { config: {} }]] as const) {
      expect(expectRefusal(await platform.call(method, "/v1/plugins/keeper/config", { key, body }), "FORBIDDEN_SCOPE").required_scope).toBe("plugins:admin");
      for (const name of ["nobody", "Keeper", "k", "%00"]) expectRefusal(await tenant.api(method, `/v1/plugins/${name}/config`, body), "NOT_FOUND");
    }
  });
});

describe("a manifest's config_schema", () => {
  const base = { ...walker.manifest, name: "described" };
  const wrongWith = (config_schema: unknown) => v.safeParse(Manifest, { ...base, config_schema }).issues?.[0].message ?? null;
  const register = async (config_schema: unknown) => {
    const answer = await fetch(`${platform.internalUrl}/internal/registry/register`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
      body: JSON.stringify({ manifest: { ...base, config_schema }, endpoint: "http://127.0.0.1:9" }),
    });
    return { status: answer.status, body: await answer.json() };
  };

  it("comes from the plugin's own schema, and is shown to who configures it", async () => {
    const { config_schema } = (await tenant.api("GET", "/v1/plugins/keeper")).body;
    expect(config_schema).toMatchObject({ type: "object", additionalProperties: false, properties: { style: { enum: ["short", "long"] } } });
    expect((await tenant.api("GET", "/v1/plugins/echo")).body.config_schema).toBeNull();
    expect("config_schema" in echo.manifest).toBe(false);
  });

  it.each<[string, unknown, RegExp]>([
    ["a remote reference", { $ref: "https://evil.example/schema.json" }, /holds \$ref, which is not supported/],
    ["a reference that goes round", { properties: { a: { $ref: "#" } } }, /config_schema\.properties\.a holds \$ref/],
    ["definitions", { $defs: { a: {} } }, /\$defs/],
    ["what compares everything with everything", { properties: { a: { uniqueItems: true } } }, /uniqueItems/],
    ["patterns for names", { patternProperties: { "(a+)+$": {} } }, /patternProperties/],
    ["a long pattern", { properties: { a: { pattern: "a".repeat(501) } } }, /at most 500 characters/],
    ["names that poison objects", { properties: JSON.parse('{"__proto__": {}}') }, /__proto__/],
    ["no schemas where they belong", { anyOf: {} }, /must hold schemas/],
    ["a number for a schema", { additionalProperties: 7 }, /must be a JSON Schema/],
    ["too many levels", Array.from({ length: 30 }).reduce((inner) => ({ properties: { a: inner } }), {}), /24 levels/],
    ["too many bytes", { description: "x".repeat(40_000) }, /larger than 32768 bytes/],
  ])("must not hold %s", (_, schema, message) => {
    expect(wrongWith(schema)).toMatch(message);
  });

  it.each<[string, unknown]>([
    ["is no JSON Schema", { type: "string of some kind" }],
    ["has a pattern that is none", { properties: { a: { pattern: "(" } } }],
    ["has a pattern that looks ahead", { properties: { a: { pattern: "a(?=b)" } } }],
  ])("that %s is refused when the plugin is registered", async (_, schema) => {
    await nothingWritten(async () => {
      expect(await register(schema)).toMatchObject({
        status: 422,
        body: { error: { code: "INVALID_INPUT", message: expect.stringContaining("config_schema cannot be compiled") } },
      });
    });
  });

  it("with a pattern that runs away elsewhere is checked in time that grows with the text", () => {
    const schema = { properties: { a: { pattern: "^(a+)+$" } } };
    const config = { a: `${"a".repeat(30_000)}!` };
    expect(configIssues(schema, config)).toEqual([{ path: "config.a", message: 'must match pattern "^(a+)+$"' }]);
  });

  it("reads own members only, and says little of much that is wrong", () => {
    expect(configIssues({ required: ["toString"] }, {})).toEqual([{ path: "config.toString", message: "is required" }]);
    const either = { additionalProperties: { anyOf: Array.from({ length: 50 }, (_, n) => ({ const: n })) } };
    expect(configIssues(either, { ["x".repeat(5_000)]: "y" }).every(({ path, message }) => path.length <= 200 && message.length <= 200)).toBe(true);
    expect(configIssues(either, { a: "y" }).length).toBeLessThanOrEqual(10);
  });
});
