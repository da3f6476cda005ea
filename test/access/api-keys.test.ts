import { createHash } from "node:crypto";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openDoorkeeper } from "../../shared/access/admission.ts";
import { revokeApiKey } from "../../shared/access/api-keys.ts";
import { SCOPES } from "../../shared/access/caller.ts";
import type { TenantDb } from "../../shared/db/database.ts";
import { asId, newId, parseId, publicId } from "../../shared/ids.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let redis: ReturnType<typeof connectRedis>;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  redis = connectRedis(platform.redis.url);
  await vi.waitFor(() => expect(redis.status).toBe("ready"));
});
afterAll(async () => {
  redis?.disconnect();
  await platform?.stop();
});

const hashOf = (key: string) => createHash("sha256").update(key).digest("hex");
const statusWith = async (key: string) => (await platform.call("GET", "/v1/tasks", { key })).status;
const create = (tenant: TestTenant, body: Record<string, unknown> = { scopes: ["tasks:read"] }) => tenant.api("POST", "/v1/api-keys", body);

/** A database whose look-ups give their answer only when the test lets them. */
function slowDb(): { db: TenantDb; asked: Promise<void>; letGo(): void } {
  let [letGo, ask] = [() => {}, () => {}];
  const gone = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const asked = new Promise<void>((resolve) => {
    ask = resolve;
  });
  const db: TenantDb = {
    tenant: platform.db.tenant,
    async call<Row extends object>(text: string, values: readonly unknown[]) {
      const rows = await platform.db.call<Row>(text, values);
      ask();
      await gone;
      return rows;
    },
  };
  return { db, asked, letGo };
}

describe("api-key-create", () => {
  it("shows the text once, and stores only its hash", async () => {
    const tenant = await platform.tenant();
    const created = await create(tenant, { scopes: ["tasks:read", "tasks:read"], description: "dashboard" });
    expect(created.body).toMatchObject({ description: "dashboard", scopes: ["tasks:read"], environment: "live", expires_at: null, revoked_at: null });
    expect(created.body.key).toMatch(/^sk_live_[0-9a-f]{32}$/);
    expect(created.body.prefix).toBe(created.body.key.slice(8, 16));
    const rows = await platform.db.call<{ row: string }>("SELECT to_jsonb(k)::text AS row FROM api_keys k WHERE tenant_id = $1", [tenant.tenantId]);
    expect(rows.some(({ row }) => row.includes(created.body.key.slice(16)))).toBe(false);
    expect(rows.some(({ row }) => row.includes(hashOf(created.body.key)))).toBe(true);
    expect((await tenant.api("GET", "/v1/api-keys")).text).not.toMatch(/sk_live_|[0-9a-f]{64}/);
    expect(await statusWith(created.body.key)).toBe(200);
  });

  it("mints only what the caller's own key may do", async () => {
    const tenant = await platform.tenant();
    const { key } = await tenant.mintKey({ scopes: ["keys:admin", "tasks:read"] });
    const { key: testKey } = await tenant.mintKey({ environment: "test" });
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const scopes of [["tasks:write"], ["tasks:read", "tasks:write"], [...SCOPES]]) {
        const said = expectRefusal(await platform.call("POST", "/v1/api-keys", { key, body: { scopes } }), "FORBIDDEN_SCOPE");
        expect(said.missing_scopes).toEqual(scopes.filter((scope) => !["keys:admin", "tasks:read"].includes(scope)));
      }
      expectRefusal(await platform.call("POST", "/v1/api-keys", { key: testKey, body: { scopes: ["tasks:read"], environment: "live" } }), "FORBIDDEN_SCOPE");
    });
    expect((await platform.call("POST", "/v1/api-keys", { key, body: { scopes: ["keys:admin", "tasks:read"] } })).status).toBe(201);
    expect((await platform.call("POST", "/v1/api-keys", { key: testKey, body: { scopes: ["tasks:read"], environment: "test" } })).body.key).toMatch(/^sk_test_/);
  });
});

describe("a new key", () => {
  it("has the scopes of its preset, and of one only", async () => {
    const tenant = await platform.tenant();
    const scopes = async (preset: string) => (await create(tenant, { preset })).body.scopes;
    expect(await scopes("read_only")).toEqual(["tasks:read", "plugins:read", "knowledge:read"]);
    expect(await scopes("submit")).toEqual(["tasks:read", "tasks:write", "plugins:read"]);
    expect(await scopes("billing")).toEqual(["plugins:read", "billing:read", "billing:admin"]);
    expect(await scopes("admin")).toEqual([...SCOPES]);
    for (const body of [{}, { preset: "everything" }, { preset: "submit", scopes: ["tasks:read"] }]) expectRefusal(await create(tenant, body), "INVALID_INPUT");
    const { key } = await tenant.mintKey({ scopes: ["keys:admin", "tasks:read"] });
    expectRefusal(await platform.call("POST", "/v1/api-keys", { key, body: { preset: "submit" } }), "FORBIDDEN_SCOPE");
  });

  it("ends no later than the key that made it", async () => {
    const tenant = await platform.tenant();
    const expiresAt = new Date(Date.now() + 60_000);
    const { key } = await tenant.mintKey({ expiresAt });
    const mint = (more: object) => platform.call("POST", "/v1/api-keys", { key, body: { scopes: ["tasks:read"], ...more } });
    expectRefusal(await mint({ expires_at: new Date(expiresAt.getTime() + 1_000).toISOString() }), "FORBIDDEN_SCOPE");
    expect((await mint({})).body.expires_at).toBe(expiresAt.toISOString());
    const sooner = new Date(Date.now() + 30_000).toISOString();
    expect((await mint({ expires_at: sooner })).body.expires_at).toBe(sooner);
  });

  it("is no key's that was revoked while it was being made", async () => {
    const tenant = await platform.tenant();
    const { id, key } = await tenant.mintKey();
    expect(await statusWith(key)).toBe(200);
    await revokeApiKey(platform.db, tenant.tenantId, "operator", asId("key", id));
    expectRefusal(await platform.call("POST", "/v1/api-keys", { key, body: { scopes: ["tasks:read"] } }), "AUTH_INVALID");
  });

  it("may belong to a user, a service account, and to nobody of another tenant", async () => {
    const [tenant, other] = [await platform.tenant(), await platform.tenant()];
    const { body: user } = await tenant.api("POST", "/v1/users", { email: "viewer@example.com", role: "viewer" });
    expect((await create(tenant)).body.user_id).toBe(publicId("user", tenant.userId));
    expect((await create(tenant, { preset: "submit", user_id: null })).body.user_id).toBeNull();
    expect((await create(tenant, { preset: "read_only", user_id: user.id })).body.user_id).toBe(user.id);
    const said = expectRefusal(await create(tenant, { preset: "submit", user_id: user.id }), "FORBIDDEN_SCOPE");
    expect(said.missing_scopes).toEqual(["tasks:write"]);
    const foreign = expectRefusal(await create(tenant, { preset: "read_only", user_id: publicId("user", other.userId) }), "NOT_FOUND");
    expect(expectRefusal(await create(tenant, { preset: "read_only", user_id: publicId("user", newId("user")) }), "NOT_FOUND")).toEqual(foreign);
  });

  it("remembers its last use within five minutes, with one write for many calls", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant);
    const read = async () =>
      (await platform.db.call<{ at: Date | null; writes: string }>("SELECT last_used_at AS at, xmin::text AS writes FROM api_keys WHERE key_hash = $1", [hashOf(body.key)]))[0];
    expect((await read())?.at).toBeNull();
    await statusWith(body.key);
    const first = await read();
    expect(first?.at).toBeInstanceOf(Date);
    for (let i = 0; i < 5; i++) {
      await redis.del(`auth:${hashOf(body.key)}`);
      await statusWith(body.key);
    }
    expect(await read()).toEqual(first);
  });
});

it("key-upkeep deletes keys 90 days after their end, and no others", async () => {
  const tenant = await platform.tenant();
  const { body: old } = await create(tenant);
  const { body: next } = await tenant.api("POST", `/v1/api-keys/${old.id}/rotate`, {});
  const { body: revoked } = await create(tenant);
  await tenant.api("DELETE", `/v1/api-keys/${revoked.id}`);
  const age = (column: string, id: string, days: number) =>
    platform.db.platform((tx) => sql`UPDATE api_keys SET ${sql.ref(column)} = now() - ${days} * interval '1 day' WHERE id = ${parseId("key", id)}`.execute(tx));
  const ids = async () => (await tenant.api("GET", "/v1/api-keys")).body.keys.map((key: { id: string }) => key.id);
  await age("expires_at", old.id, 89);
  await age("revoked_at", revoked.id, 91);
  await age("revoked_at", next.id, 91);
  await platform.runCron("key-upkeep");
  expect(await ids()).toEqual(expect.arrayContaining([old.id]));
  expect(await ids()).not.toEqual(expect.arrayContaining([revoked.id]));
  expect(await ids()).not.toContain(next.id);
  await age("expires_at", old.id, 91);
  await platform.runCron("key-upkeep");
  expect(await ids()).toEqual([publicId("key", tenant.keyId)]);
});

it("api-key-list gives every key once, newest first, page by page", async () => {
  const tenant = await platform.tenant();
  const made: string[] = [];
  for (let i = 0; i < 7; i++) made.unshift((await create(tenant)).body.id);
  const seen: string[] = [];
  let cursor = "";
  do {
    const page = await tenant.api("GET", `/v1/api-keys?limit=3${cursor && `&cursor=${cursor}`}`);
    seen.push(...page.body.keys.map((key: { id: string }) => key.id));
    expect(page.body.keys.length).toBeLessThanOrEqual(3);
    cursor = page.body.next_cursor ?? "";
  } while (cursor);
  expect(seen.slice(0, 7)).toEqual(made);
  expect(new Set(seen).size).toBe(8);
});

describe("api-key-revoke", () => {
  it("ends a cached key with the very next request, and can be repeated", async () => {
    const tenant = await platform.tenant();
    for (let i = 0; i < 20; i++) {
      const { body } = await create(tenant);
      expect(await statusWith(body.key)).toBe(200);
      expect(await redis.get(`auth:${hashOf(body.key)}`)).toContain(tenant.tenantId);
      expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status).toBe(204);
      expect(await statusWith(body.key)).toBe(401);
    }
    const { body } = await create(tenant);
    expect([(await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status, (await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status]).toEqual([204, 204]);
  });

  it("is stronger than a reader that read the key before and writes it back after", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant);
    const slow = slowDb();
    const reader = openDoorkeeper(redis, slow.db).admit(body.key);
    await slow.asked;
    expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status).toBe(204);
    slow.letGo();
    expect(await reader).toBeNull();
    expect(await redis.get(`auth:${hashOf(body.key)}`)).not.toContain(tenant.tenantId);
    expect(await statusWith(body.key)).toBe(401);
  });

  it("is stronger than a reader that read the key before Redis lost everything", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant);
    const slow = slowDb();
    const reader = openDoorkeeper(redis, slow.db).admit(body.key);
    await slow.asked;
    expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status).toBe(204);
    await redis.flushall();
    slow.letGo();
    expect(await reader).toBeNull();
    expect(await statusWith(body.key)).toBe(401);
  });

  it("holds once it is answered or key-upkeep came by, though the one who committed it died before the caches knew", async () => {
    const tenant = await platform.tenant();
    for (const goOn of [(id: string) => tenant.api("DELETE", `/v1/api-keys/${id}`), () => platform.runCron("key-upkeep")]) {
      const { body } = await create(tenant);
      expect(await statusWith(body.key)).toBe(200);
      expect(await revokeApiKey(platform.db, tenant.tenantId, "operator", parseId("key", body.id) ?? newId("key"))).not.toBeNull();
      expect(await statusWith(body.key), "nobody was told yet").toBe(200);
      await goOn(body.id);
      expect(await statusWith(body.key)).toBe(401);
    }
  });

  it("leaves the tenant's other keys as they were", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant);
    const { body: other } = await create(tenant);
    expect(await statusWith(other.key)).toBe(200);
    await tenant.api("DELETE", `/v1/api-keys/${body.id}`);
    expect(await statusWith(other.key)).toBe(200);
    expect(await redis.get(`auth:${hashOf(other.key)}`)).toContain(tenant.tenantId);
  });

  it("lets the key's tasks run to their end, and cancels them with cascade", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant, { preset: "submit" });
    const { body: mine } = await tenant.api("POST", "/v1/tasks", { command: "stays queued", plugin: "echo" });
    const { body: theirs } = await platform.call("POST", "/v1/tasks", { key: body.key, body: { command: "stays queued", plugin: "echo" } });
    const statusOf = async (id: string) => (await tenant.api("GET", `/v1/tasks/${id}`)).body.status;
    expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status).toBe(204);
    expect(await statusOf(theirs.task_id)).toBe("queued");
    expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}?cascade=true`)).status).toBe(204);
    expect([await statusOf(theirs.task_id), await statusOf(mine.task_id)]).toEqual(["cancelled", "queued"]);
  });
});

describe("api-key-rotate", () => {
  const rotate = (tenant: TestTenant, id: string, body: Record<string, unknown> = {}) => tenant.api("POST", `/v1/api-keys/${id}/rotate`, body);

  it("without grace ends the old key with the next request", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant, { scopes: ["tasks:read", "plugins:read"], description: "ci" });
    expect(await statusWith(old.key)).toBe(200);
    const rotated = await rotate(tenant, old.id, { grace_seconds: 0 });
    expect(rotated.body).toMatchObject({ scopes: ["tasks:read", "plugins:read"], description: "ci", environment: "live", revoked_at: null, expires_at: null });
    expect(rotated.body.id).not.toBe(old.id);
    expect(await statusWith(old.key)).toBe(401);
    expect(await statusWith(rotated.body.key)).toBe(200);
  });

  it("lets both keys work for 24 hours unless said", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant);
    const { body: next } = await rotate(tenant, old.id);
    expect([await statusWith(old.key), await statusWith(next.key)]).toEqual([200, 200]);
    const listed = (await tenant.api("GET", "/v1/api-keys")).body.keys.find((key: { id: string }) => key.id === old.id);
    const hours = (Date.parse(listed.expires_at) - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(23.9);
    expect(hours).toBeLessThanOrEqual(24.01);
  });

  it("ends the old key when the grace is over, also where it is cached", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant);
    expect(await statusWith(old.key)).toBe(200);
    expect(await redis.pttl(`auth:${hashOf(old.key)}`)).toBeGreaterThan(100_000);
    const { body: next } = await rotate(tenant, old.id, { grace_seconds: 2 });
    await statusWith(old.key);
    expect(await redis.pttl(`auth:${hashOf(old.key)}`)).toBeLessThanOrEqual(2_000);
    await expect.poll(() => statusWith(old.key), { timeout: 10_000 }).toBe(401);
    expect(await statusWith(next.key)).toBe(200);
  });

  it("is stronger than a reader that read the key before, and comes back when the grace is over", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant);
    const slow = slowDb();
    const reader = openDoorkeeper(redis, slow.db).admit(old.key);
    await slow.asked;
    expect((await rotate(tenant, old.id, { grace_seconds: 1 })).status).toBe(201);
    await expect.poll(() => statusWith(old.key), { timeout: 10_000 }).toBe(401);
    slow.letGo();
    expect(await reader).toBeNull();
    expect(await statusWith(old.key)).toBe(401);
  });

  it("gives a key that lives longer, or is an owner's, to nobody who has less", async () => {
    const tenant = await platform.tenant();
    const { body: lasting } = await create(tenant);
    const { key: brief } = await tenant.mintKey({ userId: tenant.userId, expiresAt: new Date(Date.now() + 60_000) });
    expectRefusal(await platform.call("POST", `/v1/api-keys/${lasting.id}/rotate`, { key: brief, body: {} }), "FORBIDDEN_SCOPE");
    const { key: service } = await tenant.mintKey();
    expectRefusal(await platform.call("POST", `/v1/api-keys/${lasting.id}/rotate`, { key: service, body: {} }), "FORBIDDEN_SCOPE");
    expect(await statusWith(lasting.key)).toBe(200);
  });

  it("never makes a key live longer than it would have", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant, { scopes: ["tasks:read"], expires_at: new Date(Date.now() + 60_000).toISOString() });
    const { body: next } = await rotate(tenant, old.id);
    const keys = (await tenant.api("GET", "/v1/api-keys")).body.keys;
    expect(keys.find((key: { id: string }) => key.id === old.id).expires_at).toBe(old.expires_at);
    expect(next.expires_at).toBe(old.expires_at);
  });

  it("happens once a key, also when two try at once", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant);
    const both = await Promise.all([rotate(tenant, old.id), rotate(tenant, old.id), rotate(tenant, old.id)]);
    expect(both.map((answer) => answer.status).sort()).toEqual([201, 409, 409]);
    expectRefusal(await rotate(tenant, old.id), "CONFLICT");
    const { body: revoked } = await create(tenant);
    await tenant.api("DELETE", `/v1/api-keys/${revoked.id}`);
    expectRefusal(await rotate(tenant, revoked.id), "CONFLICT");
  });

  it("refuses a caller that may do less than the key", async () => {
    const tenant = await platform.tenant();
    const { key } = await tenant.mintKey({ scopes: ["keys:admin"] });
    const { body: old } = await create(tenant);
    expectRefusal(await platform.call("POST", `/v1/api-keys/${old.id}/rotate`, { key, body: {} }), "FORBIDDEN_SCOPE");
    expect(await statusWith(old.key)).toBe(200);
  });

  it("refuses a grace that is none", async () => {
    const tenant = await platform.tenant();
    const { body: old } = await create(tenant);
    for (const grace_seconds of [-1, 86_401, 1.5, "60", null, 1e308]) expectRefusal(await rotate(tenant, old.id, { grace_seconds }), "INVALID_INPUT", String(grace_seconds));
  });

  it("gives a test key's successor no live rights", async () => {
    const tenant = await platform.tenant();
    const { body: live } = await create(tenant);
    const { key } = await tenant.mintKey({ environment: "test" });
    expectRefusal(await platform.call("POST", `/v1/api-keys/${live.id}/rotate`, { key, body: {} }), "FORBIDDEN_SCOPE");
  });

  it("is no test key's to end for a live key", async () => {
    const tenant = await platform.tenant();
    const [{ body: live }, { body: test }] = [await create(tenant), await create(tenant, { scopes: ["tasks:read"], environment: "test" })];
    const { key } = await tenant.mintKey({ environment: "test", userId: tenant.userId });
    expectRefusal(await platform.call("DELETE", `/v1/api-keys/${live.id}`, { key }), "FORBIDDEN_SCOPE");
    expect(await statusWith(live.key)).toBe(200);
    expect((await platform.call("DELETE", `/v1/api-keys/${test.id}`, { key })).status).toBe(204);
  });
});

describe("expiry", () => {
  it("is never cached past", async () => {
    const tenant = await platform.tenant();
    const expiresAt = Date.now() + 2_000;
    const { key } = await tenant.mintKey({ expiresAt: new Date(expiresAt) });
    expect(await statusWith(key)).toBe(200);
    const left = await redis.pttl(`auth:${hashOf(key)}`);
    expect(left).toBeGreaterThan(0);
    expect(Date.now() + left).toBeLessThanOrEqual(expiresAt + 5);
    await expect.poll(() => statusWith(key), { timeout: 10_000 }).toBe(401);
    expect(Date.now()).toBeGreaterThanOrEqual(expiresAt);
  });

  it("refuses a time that is past, or none", async () => {
    const tenant = await platform.tenant();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const expires_at of [new Date(Date.now() - 1).toISOString(), "tomorrow", "2027-13-01T00:00:00Z", "2027-02-30", 0, null]) {
        expectRefusal(await create(tenant, { scopes: ["tasks:read"], expires_at }), "INVALID_INPUT", String(expires_at));
      }
    });
  });
});

it("ids of keys name the kind of thing that they are", async () => {
  const tenant = await platform.tenant();
  const { body } = await create(tenant);
  expect(parseId("key", body.id)).not.toBeNull();
  expect(parseId("task", body.id)).toBeNull();
});
