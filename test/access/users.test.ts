import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { scopesOf } from "../../shared/access/roles.ts";
import { asId, newId, publicId, type UserId } from "../../shared/ids.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ withBridge: false });
});
afterAll(() => platform?.stop());

let count = 0;
/** A user with a key of every scope that was ever given to it. */
async function userOf(tenant: TestTenant, role: string): Promise<{ id: string; key: string; keyId: string }> {
  const { body } = await tenant.api("POST", "/v1/users", { email: `user-${++count}@example.com`, role });
  const userId = await idOf(body.id);
  const { key, id } = await tenant.mintKey({ userId });
  return { id: body.id, key, keyId: id };
}
async function idOf(id: string): Promise<UserId> {
  const [row] = await platform.db.call<{ id: string }>("SELECT id FROM users ORDER BY created_at DESC, id DESC LIMIT 1", []);
  expect(publicId("user", row?.id ?? "")).toBe(id);
  return asId("user", row?.id ?? "");
}
const patch = (key: string, id: string, body: object) => platform.call("PATCH", `/v1/users/${id}`, { key, body });
const remove = (key: string, id: string) => platform.call("DELETE", `/v1/users/${id}`, { key });
const askErasure = (key: string, id: string) => platform.call("POST", "/v1/gdpr/erasure-request", { key, body: { user_id: id } });
const ownerOf = (tenant: TestTenant) => publicId("user", tenant.userId);
const roles = async (tenant: TestTenant) => Object.fromEntries((await tenant.api("GET", "/v1/users")).body.users.map((user: { id: string; role: string }) => [user.id, user.role]));

describe("users", () => {
  it("are made, listed, shown, changed and removed", async () => {
    const tenant = await platform.tenant();
    const { body: made, status } = await tenant.api("POST", "/v1/users", { email: " Ada@Example.com ", role: "billing" });
    expect([status, made.email, made.role]).toEqual([201, "Ada@Example.com", "billing"]);
    expect((await tenant.api("GET", `/v1/users/${made.id}`)).body).toMatchObject({ ...made, scopes: [...scopesOf("billing")] });
    expect((await tenant.api("PATCH", `/v1/users/${made.id}`, { email: "ada@example.org", role: "viewer" })).body).toMatchObject({ email: "ada@example.org", role: "viewer" });
    expect(await roles(tenant)).toEqual({ [made.id]: "viewer", [ownerOf(tenant)]: "owner" });
    expect((await tenant.api("DELETE", `/v1/users/${made.id}`)).status).toBe(204);
    expectRefusal(await tenant.api("GET", `/v1/users/${made.id}`), "NOT_FOUND");
    expectRefusal(await tenant.api("DELETE", `/v1/users/${made.id}`), "NOT_FOUND");
    const { entries } = (await tenant.api("GET", "/v1/audit")).body;
    expect(entries.map((entry: { action: string }) => entry.action)).toEqual(["user.deleted", "user.email_set", "user.role_set", "user.created"]);
    // Not the bare name: a digest in hexadecimal may hold those three letters.
    expect(JSON.stringify(entries)).not.toMatch(/@|example/i);
  });

  it("have an address that is no other user's of the tenant, however it is written", async () => {
    const [tenant, other] = [await platform.tenant(), await platform.tenant()];
    const make = (who: TestTenant, email: string) => who.api("POST", "/v1/users", { email });
    const { body: bob } = await make(tenant, "bob@example.com");
    expectRefusal(await make(tenant, "BOB@example.com"), "CONFLICT");
    const { body: eve } = await make(tenant, "eve@example.com");
    expectRefusal(await tenant.api("PATCH", `/v1/users/${eve.id}`, { email: "Bob@Example.com" }), "CONFLICT");
    expect((await tenant.api("PATCH", `/v1/users/${bob.id}`, { email: "Bob@Example.com" })).status).toBe(200);
    expect((await make(other, "bob@example.com")).status).toBe(201);
    const all = await Promise.all(Array.from({ length: 8 }, () => make(tenant, "same@example.com")));
    expect(all.map(({ status }) => status).sort()).toEqual([201, ...Array(7).fill(409)]);
    for (const email of ["", "nobody", "a@", "@b.c", "a b@c.de", `${"x".repeat(250)}@example.com`, null, 1])
      expectRefusal(await tenant.api("POST", "/v1/users", { email }), "INVALID_INPUT", String(email));
  });
});

describe("a role", () => {
  it.each(["owner", "admin", "developer", "billing", "viewer"] as const)("%s bounds every key of its user", async (role) => {
    const tenant = await platform.tenant();
    const { key } = await userOf(tenant, role);
    const routes = {
      "tasks:read": "/v1/tasks",
      "keys:admin": "/v1/api-keys",
      "users:admin": "/v1/users",
      "audit:read": "/v1/audit",
      "plugins:read": "/v1/plugins",
      "knowledge:read": "/v1/knowledge",
    } as const;
    for (const [scope, path] of Object.entries(routes))
      expect((await platform.call("GET", path, { key })).status, path).toBe(scopesOf(role).some((has) => has === scope) ? 200 : 403);
  });

  it("that is lowered takes from the keys at once what it no longer allows, and no more", async () => {
    const tenant = await platform.tenant();
    const { id, key } = await userOf(tenant, "admin");
    expect((await platform.call("GET", "/v1/users", { key })).status).toBe(200);
    expect((await tenant.api("PATCH", `/v1/users/${id}`, { role: "viewer" })).status).toBe(200);
    expectRefusal(await platform.call("GET", "/v1/users", { key }), "FORBIDDEN_SCOPE");
    expectRefusal(await platform.call("POST", "/v1/tasks", { key, body: { command: "x" } }), "FORBIDDEN_SCOPE");
    expect((await platform.call("GET", "/v1/tasks", { key })).status).toBe(200);
    expect((await tenant.api("PATCH", `/v1/users/${id}`, { role: "admin" })).status).toBe(200);
    expect((await platform.call("GET", "/v1/users", { key })).status).toBe(200);
  });

  it("that was lowered is not handed on to a key's successor", async () => {
    const tenant = await platform.tenant();
    const { id, keyId } = await userOf(tenant, "admin");
    await tenant.api("PATCH", `/v1/users/${id}`, { role: "viewer" });
    const { body } = await tenant.api("POST", `/v1/api-keys/${publicId("key", keyId)}/rotate`, {});
    expect(body.scopes).toEqual(scopesOf("viewer"));
  });
});

describe("nobody", () => {
  it("makes, changes, removes or acts as an owner but an owner", async () => {
    const tenant = await platform.tenant();
    const admin = await userOf(tenant, "admin");
    const { key: service } = await tenant.mintKey();
    const ownersKey = publicId("key", tenant.keyId);
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const key of [admin.key, service]) {
        expectRefusal(await platform.call("POST", "/v1/users", { key, body: { email: "new@example.com", role: "owner" } }), "FORBIDDEN_SCOPE");
        expectRefusal(await patch(key, admin.id, { role: "owner" }), "FORBIDDEN_SCOPE");
        expectRefusal(await patch(key, ownerOf(tenant), { role: "viewer" }), "FORBIDDEN_SCOPE");
        expectRefusal(await patch(key, ownerOf(tenant), { email: "mine@example.com" }), "FORBIDDEN_SCOPE");
        expectRefusal(await remove(key, ownerOf(tenant)), "FORBIDDEN_SCOPE");
        expectRefusal(await platform.call("POST", "/v1/api-keys", { key, body: { scopes: ["tasks:read"], user_id: ownerOf(tenant) } }), "FORBIDDEN_SCOPE");
        expectRefusal(await platform.call("POST", `/v1/api-keys/${ownersKey}/rotate`, { key, body: {} }), "FORBIDDEN_SCOPE");
        expectRefusal(await platform.call("DELETE", `/v1/api-keys/${ownersKey}`, { key }), "FORBIDDEN_SCOPE");
        expectRefusal(await askErasure(key, ownerOf(tenant)), "FORBIDDEN_SCOPE");
      }
    });
    expect(await roles(tenant)).toMatchObject({ [ownerOf(tenant)]: "owner", [admin.id]: "admin" });
  });

  it("but another owner ends an owner, or an owner's key; and the owner themself, with a key of any scope", async () => {
    const tenant = await platform.tenant();
    const [second, third] = [await userOf(tenant, "owner"), await userOf(tenant, "owner")];
    expect((await platform.call("DELETE", `/v1/api-keys/${publicId("key", second.keyId)}`, { key: tenant.key })).status).toBe(204);
    expect((await askErasure(tenant.key, second.id)).status).toBe(202);
    expect((await askErasure(third.key, third.id)).status).toBe(202);
  });

  it("gives a role that allows more than the key that gives it", async () => {
    const tenant = await platform.tenant();
    const { id } = await userOf(tenant, "viewer");
    const { key } = await tenant.mintKey({ userId: tenant.userId, scopes: ["users:admin", "tasks:read", "plugins:read", "knowledge:read"] });
    for (const role of ["admin", "developer", "billing"]) {
      const said = expectRefusal(await patch(key, id, { role }), "FORBIDDEN_SCOPE", role);
      expect(said.missing_scopes).toEqual(
        scopesOf(role === "admin" ? "admin" : role === "billing" ? "billing" : "developer").filter(
          (scope) => !["users:admin", "tasks:read", "plugins:read", "knowledge:read"].includes(scope),
        ),
      );
    }
    expect((await platform.call("POST", "/v1/users", { key, body: { email: "viewer-2@example.com", role: "viewer" } })).status).toBe(201);
  });

  it("raises himself, and everybody may lower himself", async () => {
    const tenant = await platform.tenant();
    const admin = await userOf(tenant, "admin");
    expectRefusal(await patch(admin.key, admin.id, { role: "owner" }), "FORBIDDEN_SCOPE");
    expect((await patch(admin.key, admin.id, { role: "viewer" })).status).toBe(200);
    expectRefusal(await patch(admin.key, admin.id, { role: "admin" }), "FORBIDDEN_SCOPE");
  });
});

describe("the last owner", () => {
  it("stays", async () => {
    const tenant = await platform.tenant();
    for (const role of ["admin", "viewer"]) expectRefusal(await tenant.api("PATCH", `/v1/users/${ownerOf(tenant)}`, { role }), "CONFLICT");
    expectRefusal(await tenant.api("DELETE", `/v1/users/${ownerOf(tenant)}`), "CONFLICT");
    await userOf(tenant, "owner");
    expect((await tenant.api("PATCH", `/v1/users/${ownerOf(tenant)}`, { role: "viewer" })).status).toBe(200);
  });

  it("stays when two owners remove or lower each other at once", async () => {
    for (let round = 0; round < 10; round++) {
      const tenant = await platform.tenant();
      const second = await userOf(tenant, "owner");
      const ends = await Promise.all([round % 2 ? remove(tenant.key, second.id) : patch(tenant.key, second.id, { role: "viewer" }), remove(second.key, ownerOf(tenant))]);
      const owners = await platform.db.platform((tx) => tx.selectFrom("users").select("id").where("tenant_id", "=", tenant.tenantId).where("role", "=", "owner").execute());
      expect(owners, JSON.stringify(ends.map((end) => end.status))).toHaveLength(1);
      expect(ends.filter((end) => end.status < 300)).toHaveLength(1);
    }
  });

  it("stays when two owners have themselves erased at once, and when one who is being erased is the only other", async () => {
    for (let round = 0; round < 10; round++) {
      const tenant = await platform.tenant();
      const second = await userOf(tenant, "owner");
      const ends = await Promise.all([askErasure(tenant.key, ownerOf(tenant)), round % 2 ? askErasure(second.key, second.id) : remove(second.key, second.id)]);
      expect(ends.map(({ status }) => status).filter((status) => status >= 300)).toEqual([409]);
      const [key, id] = ends[0].status === 409 ? [tenant.key, ownerOf(tenant)] : [second.key, second.id];
      for (const end of [await askErasure(key, id), await remove(key, id), await patch(key, id, { role: "viewer" })]) expectRefusal(end, "CONFLICT");
    }
  });
});

describe("a user who is removed", () => {
  it("has no key that works, from the 204 on", async () => {
    const tenant = await platform.tenant();
    for (let i = 0; i < 5; i++) {
      const { id, key } = await userOf(tenant, "developer");
      expect((await platform.call("GET", "/v1/tasks", { key })).status).toBe(200);
      expect((await tenant.api("DELETE", `/v1/users/${id}`)).status).toBe(204);
      expect((await platform.call("GET", "/v1/tasks", { key })).status).toBe(401);
    }
  });
});

it("an id of another tenant is an id of nobody", async () => {
  const [tenant, other] = [await platform.tenant(), await platform.tenant()];
  await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
    for (const id of [ownerOf(other), publicId("user", newId("user"))]) {
      expectRefusal(await tenant.api("GET", `/v1/users/${id}`), "NOT_FOUND");
      expectRefusal(await tenant.api("PATCH", `/v1/users/${id}`, { role: "viewer" }), "NOT_FOUND");
      expectRefusal(await tenant.api("DELETE", `/v1/users/${id}`), "NOT_FOUND");
    }
  });
  expect(await roles(other)).toEqual({ [ownerOf(other)]: "owner" });
});
