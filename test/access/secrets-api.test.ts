import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { keeper } from "../batteries/plugins.ts";
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

const VALUE = "hunter2-ü-😀";
const put = (value: unknown = VALUE, name = "token", plugin = "keeper") => tenant.api("PUT", `/v1/plugins/${plugin}/secrets/${name}`, { value });
const list = (plugin = "keeper") => tenant.api("GET", `/v1/plugins/${plugin}/secrets`);
const remove = (name = "token", plugin = "keeper") => tenant.api("DELETE", `/v1/plugins/${plugin}/secrets/${name}`);
const tell = async () => (await tenant.api("POST", "/v1/tasks", { command: "tell", plugin: "keeper" }, { prefer: "wait=20" })).body.result;
const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(platform.env.DATABASE_URL ?? "", work);

describe("a tenant's secret", () => {
  it("reaches the plugin's next execution, prints as [secret] there, and is gone when it is deleted", async () => {
    expect(await tell()).toBe('null {"token":null} 0 null short');
    expect((await put()).status).toBe(201);
    expect(await tell()).toBe(`[secret] {"token":"[secret]"} ${VALUE.length} null short`);
    expect((await put("1")).status).toBe(200);
    expect(await tell()).toContain(" 1 ");
    expect((await remove()).status).toBe(204);
    expect(await tell()).toContain('{"token":null}');
    expectRefusal(await remove(), "NOT_FOUND");
  });

  it("is given back by no call", async () => {
    const answers = [await put(), await list(), await put(), await tenant.api("GET", "/v1/plugins/keeper"), await tenant.api("GET", "/v1/plugins/keeper/config")];
    for (const answer of answers) expect(answer.text).not.toContain("hunter2");
    const { secrets } = (await list()).body;
    expect(secrets).toEqual([{ name: "token", created_at: expect.any(String), updated_at: expect.any(String) }]);
    expect(secrets[0].updated_at > secrets[0].created_at).toBe(true);
    expectRefusal(await tenant.api("GET", "/v1/plugins/keeper/secrets/token"), "METHOD_NOT_ALLOWED");
  });

  it("that the manifest declares and the scopes do not allow is not opened", async () => {
    expect((await put("never seen", "not_in_scope")).status).toBe(201);
    expect(await tell()).toContain(" null short");
  });

  it("must be one that the plugin declares", async () => {
    await nothingWritten(async () => {
      const said = expectRefusal(await put(VALUE, "other"), "INVALID_INPUT");
      expect(said).toMatchObject({ message: "keeper declares no secret named other; it takes token, not_in_scope.", declared_names: ["token", "not_in_scope"] });
      expect(expectRefusal(await put(VALUE, "token", "echo"), "INVALID_INPUT").message).toContain("it takes none");
    });
  });

  it.each<[string, unknown, "INVALID_INPUT" | "PAYLOAD_TOO_LARGE"]>([
    ["nothing", "", "INVALID_INPUT"],
    ["a number", 7, "INVALID_INPUT"],
    ["NUL", "a\0b", "INVALID_INPUT"],
    ["half a character", "\ud83d", "INVALID_INPUT"],
    ["16 kB and a byte", "x".repeat(16_385), "INVALID_INPUT"],
    ["16 kB in characters of two bytes", "ü".repeat(8_193), "INVALID_INPUT"],
    ["100 kB", "x".repeat(100_000), "PAYLOAD_TOO_LARGE"],
  ])("must not be %s, and the refusal does not repeat it", async (_, value, code) => {
    await nothingWritten(async () => {
      const answer = await put(value);
      expectRefusal(answer, code);
      expect(answer.text.length).toBeLessThan(1_000);
    });
  });

  it("may have 16 kB, line breaks and every other character", async () => {
    for (const value of ["x".repeat(16_384), "-----BEGIN KEY-----\n\r\n\t\"'\\;--\u0001\u2028", " "]) {
      expect((await put(value)).status).toBeLessThan(300);
      expect(await tell()).toContain(` ${value.length} `);
    }
  });

  it.each([
    "/v1/plugins/keeper/secrets/",
    "/v1/plugins/keeper/secrets/UPPER",
    "/v1/plugins/keeper/secrets/a%2f..",
    "/v1/plugins/keeper/secrets/%00",
    "/v1/plugins/nobody/secrets/token",
  ])("has no address %s", async (path) => {
    await nothingWritten(async () => {
      for (const [method, body] of [["PUT", { value: VALUE }], ["DELETE"]] as const) expectRefusal(await tenant.api(method, path, body), "NOT_FOUND", `${method} ${path}`);
    });
  });

  it("belongs to its tenant", async () => {
    await put();
    const owner = tenant;
    tenant = await platform.tenant();
    expect((await list()).body).toEqual({ secrets: [] });
    expectRefusal(await remove(), "NOT_FOUND");
    expect(await tell()).toContain('{"token":null}');
    tenant = owner;
    expect((await list()).body.secrets).toHaveLength(1);
  });

  it("asks for its own scope", async () => {
    const { key } = await tenant.mintKey({ scopes: ["plugins:admin", "plugins:read", "tasks:write", "keys:admin"] });
    for (const [method, path, body] of [
      ["GET", "/v1/plugins/keeper/secrets"],
      ["PUT", "/v1/plugins/keeper/secrets/token", { value: VALUE }],
      ["DELETE", "/v1/plugins/keeper/secrets/token"],
      ["GET", "/v1/plugins/nobody/secrets"],
    ] as const)
      expect(expectRefusal(await platform.call(method, path, { key, body }), "FORBIDDEN_SCOPE").required_scope).toBe("secrets:admin");
  });

  it("cannot be listed for a plugin that is not there", async () => {
    expectRefusal(await list("nobody"), "NOT_FOUND");
    expectRefusal(await list("Keeper"), "NOT_FOUND");
  });

  it("is one, whoever of ten sets it first", async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => put(`value ${n}`)));
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(9).fill(200), 201]);
    expect((await list()).body.secrets).toHaveLength(1);
  });
});
