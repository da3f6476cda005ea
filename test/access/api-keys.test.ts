import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { forgetKey, openDoorkeeper, recacheKey } from "../../shared/access/admission.ts";
import { SCOPES } from "../../shared/access/caller.ts";
import type { TenantDb } from "../../shared/db/database.ts";
import { parseId } from "../../shared/ids.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
let redis: ReturnType<typeof connectRedis>;
beforeAll(async () => {
  platform = await startTestPlatform({ withBridge: false });
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
    expect(await redis.get(`auth:${hashOf(body.key)}`)).toBe('{"x":"revoked"}');
    expect(await statusWith(body.key)).toBe(401);
  });

  it("is stronger than a rotation that renews the cached entry at the same time", async () => {
    const tenant = await platform.tenant();
    const { body } = await create(tenant);
    const slow = slowDb();
    const renewal = recacheKey(redis, slow.db, hashOf(body.key));
    await slow.asked;
    expect((await tenant.api("DELETE", `/v1/api-keys/${body.id}`)).status).toBe(204);
    slow.letGo();
    await renewal;
    expect(await statusWith(body.key)).toBe(401);
  });

  it("leaves a tombstone that outlives every cached entry", async () => {
    await forgetKey(redis, "0".repeat(64));
    expect(await redis.pttl(`auth:${"0".repeat(64)}`)).toBeGreaterThan(300_000);
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
    expect(await redis.pttl(`auth:${hashOf(old.key)}`)).toBeLessThanOrEqual(2_000);
    await expect.poll(() => statusWith(old.key), { timeout: 10_000 }).toBe(401);
    expect(await statusWith(next.key)).toBe(200);
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
