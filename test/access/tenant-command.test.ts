import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verifyAudit } from "../../scripts/audit-verify.ts";
import { tenantCommand } from "../../scripts/tenant.ts";
import { SCOPES } from "../../shared/access/caller.ts";
import { newId, publicId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";

let platform: TestPlatform;
let admin: pg.Client;
beforeAll(async () => {
  platform = await startTestPlatform({ withBridge: false });
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
});
afterAll(async () => {
  await admin?.end();
  await platform?.stop();
});

async function run(...argv: string[]): Promise<{ code: number; result: string[]; said: string }> {
  const [result, said]: [string[], string[]] = [[], []];
  const code = await tenantCommand(argv, platform.env, { result: (line) => result.push(line), say: (line) => said.push(line) });
  return { code, result, said: said.join("\n") };
}
async function create(name: string, ...more: string[]): Promise<{ id: string; key: string }> {
  const { code, result, said } = await run("create", "--name", name, "--owner-email", `owner@${name}.example`, ...more);
  expect(code, said).toBe(0);
  return { id: /ten_\w{26}/.exec(said)?.[0] ?? "", key: result[0] ?? "" };
}

describe("npm run tenant", () => {
  it("makes the first tenant, its owner and a key that may do everything", async () => {
    const { result } = await run("create", "--name", "first", "--tier", "enterprise", "--owner-email", "owner@first.example");
    expect(result).toEqual([expect.stringMatching(/^sk_live_[0-9a-f]{32}$/)]);
    const key = result[0] ?? "";
    const { users } = (await platform.call("GET", "/v1/users", { key })).body;
    expect(users).toMatchObject([{ email: "owner@first.example", role: "owner" }]);
    const { keys } = (await platform.call("GET", "/v1/api-keys", { key })).body;
    expect(keys).toMatchObject([{ scopes: [...SCOPES], user_id: users[0].id, expires_at: null }]);
    const { entries } = (await platform.call("GET", "/v1/audit?actor=operator", { key })).body;
    expect(entries.map((entry: { action: string }) => entry.action)).toEqual(["key.created", "user.created", "tenant.created"]);
    expect(JSON.stringify(entries)).not.toContain(key.slice(8));
    expect((await run("list")).said).toMatch(/ten_\w{26} {2}enterprise {2}1 users .* first/);
  });

  it("makes one tenant of a name, also when two try at once", async () => {
    const both = await Promise.all([1, 2].map(() => run("create", "--name", "twice", "--owner-email", "owner@twice.example")));
    expect(both.map(({ code }) => code).sort()).toEqual([0, 1]);
    expect(both.find(({ code }) => code === 1)?.said).toMatch(/is there already/);
  });

  it("changes tier and limits for keys that are cached", async () => {
    const { id, key } = await create("grows");
    const limit = async () => (await platform.call("GET", "/v1/tasks", { key })).headers.get("x-ratelimit-limit");
    expect(await limit()).toBe("120");
    expect((await run("set-tier", "--tenant", id, "--tier", "professional")).code).toBe(0);
    expect(await limit()).toBe("600");
    expect((await run("set", "--tenant", id, "--rate-per-tenant", "7000", "--test-models", "live")).said).toContain('"test_models":"live"');
    expect(await limit()).toBe("7000");
    expect((await run("set", "--tenant", id, "--rate-per-tenant", "0")).code).toBe(0);
    expect((await run("set", "--tenant", id, "--artifact-days", "30")).said).toContain('"retention":{"artifact_days":30}');
    expect((await run("set", "--tenant", id, "--artifact-days", "0")).said).toContain('"retention":{}');
    expect(await limit()).toBe("600");
  });

  it("gives an owner another key, and nobody else one", async () => {
    const { id, key } = await create("locked-out");
    await platform.call("POST", "/v1/users", { key, body: { email: "viewer@example.com", role: "viewer" } });
    const again = await run("owner-key", "--tenant", id, "--email", "OWNER@locked-out.example", "--expires-at", "2999-01-01T00:00:00Z");
    expect((await platform.call("GET", "/v1/users", { key: again.result[0] })).body.users).toHaveLength(2);
    expect((await run("owner-key", "--tenant", id, "--email", "viewer@example.com")).said).toMatch(/This user is viewer, not owner/);
    expect((await run("owner-key", "--tenant", id, "--email", "second@example.com")).code).toBe(0);
    expect((await platform.call("GET", "/v1/users", { key })).body.users).toHaveLength(3);
  });

  it("says in a sentence what is wrong, and does nothing", async () => {
    const { id } = await create("mistakes");
    const before = (await run("list")).said;
    const cases: [string[], RegExp][] = [
      [[], /npm run tenant -- <command>/],
      [["delete"], /There is no command delete/],
      [["create"], /--name is missing/],
      [["create", "--name", "x"], /--owner-email is missing/],
      [["create", "--name", "x", "--owner-email", "nobody"], /--owner-email must be an e-mail address/],
      [["create", "--name", "x", "--owner-email", "a@b.example", "--tier", "gold"], /--tier must be starter, professional or enterprise/],
      [["create", "--nmae", "x"], /nmae/],
      [["set-tier", "--tenant", "ten_x", "--tier", "starter"], /--tenant must be a tenant's id/],
      [["set-tier", "--tenant", publicId("tenant", newId("tenant")), "--tier", "starter"], /There is no such tenant/],
      [["set", "--tenant", id], /Nothing to set/],
      [["set", "--tenant", id, "--rate-per-tenant", "many"], /whole number/],
      [["set", "--tenant", id, "--artifact-days", "396"], /at most 395/],
      [["owner-key", "--tenant", id, "--email", "a@b.example", "--expires-at", "2001-01-01T00:00:00Z"], /in the future/],
    ];
    for (const [argv, words] of cases) {
      const { code, result, said } = await run(...argv);
      expect([code, result], said).toEqual([1, []]);
      expect(said).toMatch(words);
    }
    expect((await run("list")).said).toBe(before);
    const said: string[] = [];
    expect(await tenantCommand(["list"], {}, { result: () => {}, say: (line) => said.push(line) })).toBe(1);
    expect(said.join()).toMatch(/DATABASE_URL is not set/);
  });
});

describe("npm run audit:verify", () => {
  async function verify(...argv: string[]): Promise<{ code: number; said: string }> {
    const said: string[] = [];
    const code = await verifyAudit(argv, platform.env, (line) => said.push(line));
    return { code, said: said.join("\n") };
  }
  /** As somebody who owns the database, past triggers and policies; put back afterwards. */
  async function tampered(statements: readonly string[], tenant: string): Promise<{ code: number; said: string }> {
    await admin.query("CREATE TABLE kept AS SELECT * FROM audit_log WHERE tenant_id = $1", [tenant]);
    await admin.query("SET session_replication_role = replica");
    for (const statement of statements) await admin.query(statement, [tenant]);
    const verdict = await verify();
    await admin.query("DELETE FROM audit_log WHERE tenant_id = $1", [tenant]);
    await admin.query("INSERT INTO audit_log SELECT * FROM kept");
    await admin.query("SET session_replication_role = origin");
    await admin.query("DROP TABLE kept");
    return verdict;
  }

  it("finds whatever was changed, removed, moved or added", async () => {
    const tenant = await platform.tenant();
    for (let i = 0; i < 5; i++) await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    expect(await verify()).toMatchObject({ code: 0, said: expect.stringMatching(/0 chains broken/) });
    const set = (what: string, where: string) => `UPDATE audit_log SET ${what} WHERE tenant_id = $1 AND seq ${where}`;
    const remove = (where: string) => `DELETE FROM audit_log WHERE tenant_id = $1 AND seq ${where}`;
    const cases: [string[], RegExp][] = [
      [[set("actor = 'operator'", "= 3")], /entry 3 is not what was written/],
      [[set("at = at + interval '1 microsecond'", "= 3")], /entry 3 is not what was written/],
      [[set(`details = details || '{"a":1}'`, "= 5")], /entry 5 is not what was written/],
      [[remove("= 1")], /entry 2 is where others are missing/],
      [[remove("= 3")], /entry 4 is where others are missing/],
      [[remove("= 5")], /entry 5 is missing, and all behind it/],
      [[remove("> 0")], /entry 1 is missing/],
      [[remove("= 3"), set("seq = seq + 100", "> 3"), set("seq = seq - 101", "> 100")], /entry 3 does not follow/],
      [[set("seq = 103", "= 3"), set("seq = 3", "= 2"), set("seq = 2", "= 103")], /entry 2 does not follow/],
    ];
    for (const [statements, words] of cases) {
      const { code, said } = await tampered(statements, tenant.tenantId);
      expect(code, statements.join()).toBe(1);
      expect(said, statements.join()).toMatch(words);
    }
    expect((await verify()).code).toBe(0);
  });

  it("finds a chain that was written anew, by the heads that were kept elsewhere", async () => {
    const folder = await mkdtemp(join(tmpdir(), "aau-heads-"));
    const file = join(folder, "heads.json");
    const tenant = await platform.tenant();
    await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    expect((await verify("--heads", file)).code).toBe(0);
    await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    expect((await verify("--heads", file)).code).toBe(0);
    await admin.query("DELETE FROM audit_log WHERE tenant_id = $1", [tenant.tenantId]);
    await admin.query("DELETE FROM audit_heads WHERE tenant_id = $1", [tenant.tenantId]);
    for (let i = 0; i < 3; i++) await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    expect((await verify()).code, "the new chain is whole").toBe(0);
    expect(await verify("--heads", file)).toMatchObject({ code: 1, said: expect.stringMatching(/entry 2 is not what it was/) });
    await writeFile(file, "{}");
    expect((await verify("--heads", file)).code).toBe(0);
    await rm(folder, { recursive: true });
  });
});
