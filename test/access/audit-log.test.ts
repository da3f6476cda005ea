import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type AuditEntry, recordAudit } from "../../shared/access/audit-log.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

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

const entry: AuditEntry = { actor: "operator", action: "config.set", targetType: "plugin", targetId: "echo" };
const write = (tenant: TestTenant, more: Partial<AuditEntry> = {}) => platform.db.tenant(tenant.tenantId, (tx) => recordAudit(tx, tenant.tenantId, { ...entry, ...more }));
async function tenantWith(count: number): Promise<TestTenant> {
  const tenant = await platform.tenant();
  for (let i = 0; i < count; i++) await write(tenant, { details: { number: i } });
  return tenant;
}

describe("the application's roles", () => {
  it.each(["aau_app", "aau_platform"])("%s can add and read entries, and do nothing else to them", async (role) => {
    const tenant = await tenantWith(1);
    for (const statement of [
      "UPDATE audit_log SET action = 'key.revoked'",
      "DELETE FROM audit_log",
      "TRUNCATE audit_log",
      "DELETE FROM audit_heads",
      "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    ]) {
      await admin.query("BEGIN");
      await admin.query("SELECT set_config('role', $1, true), set_config('app.tenant', $2, true)", [role, tenant.tenantId]);
      await expect(admin.query(statement), statement).rejects.toThrow(/permission denied|must be owner/);
      await admin.query("ROLLBACK");
    }
  });

  it("cannot choose an entry's number, time or hash", async () => {
    const tenant = await tenantWith(1);
    await admin.query("BEGIN");
    await admin.query("SELECT set_config('role', 'aau_app', true), set_config('app.tenant', $1, true)", [tenant.tenantId]);
    const { rows } = await admin.query<{ seq: string; late: boolean; hash: Buffer }>(
      `INSERT INTO audit_log (tenant_id, seq, at, actor, action, target_type, target_id, prev_hash, hash)
       VALUES ($1, 99, '2001-01-01', 'operator', 'config.set', 'plugin', 'echo', 'x', 'x') RETURNING seq, at > now() - interval '1 minute' AS late, hash`,
      [tenant.tenantId],
    );
    await admin.query("ROLLBACK");
    expect(rows[0]).toMatchObject({ seq: "2", late: true });
    expect(rows[0]?.hash).toHaveLength(32);
  });
});

it("writers at once are chained one after the other, without a gap", async () => {
  const tenant = await platform.tenant();
  const db = await openDatabase({ url: platform.env.DATABASE_URL ?? "", driver: "pg", poolSize: 20 });
  try {
    const one = (i: number) =>
      db.tenant(tenant.tenantId, async (tx) => {
        await recordAudit(tx, tenant.tenantId, { ...entry, details: { number: i } });
        if (i % 5 === 0) throw new Error("rolled back");
      });
    const ends = await Promise.allSettled(Array.from({ length: 100 }, (_, i) => one(i)));
    expect(ends.filter((end) => end.status === "fulfilled")).toHaveLength(80);
    const [verdict] = await db.call<{ checked: number; seq: string; problem: string | null }>("SELECT * FROM verify_audit_log($1, 0, '', 1000)", [tenant.tenantId]);
    expect(verdict).toMatchObject({ checked: 80, seq: "80", problem: null });
  } finally {
    await db.close();
  }
});

describe("an entry", () => {
  it("is not there when the deed is not", async () => {
    const tenant = await tenantWith(0);
    await platform.db.tenant(tenant.tenantId, (tx) => recordAudit(tx, tenant.tenantId, entry).then(() => Promise.reject(new Error("the deed failed")))).catch(() => {});
    expect((await tenant.api("GET", "/v1/audit")).body.entries).toEqual([]);
  });

  it.each([
    ["an address", "somebody@example.com"],
    ["a sentence", "two words"],
    ["a long text", "x".repeat(129)],
  ])("takes no %s", async (_, text) => {
    const tenant = await tenantWith(0);
    const tries: Partial<AuditEntry>[] = [{ details: { text } }, { details: { list: [text] } }, { targetId: text }];
    for (const more of tries) await expect(write(tenant, more)).rejects.toThrow();
    expect((await tenant.api("GET", "/v1/audit")).body.entries).toEqual([]);
  });
});

describe("audit-list", () => {
  it("tells who did what to a key", async () => {
    const tenant = await platform.tenant();
    const { key } = await tenant.mintKey({ userId: null });
    const { body: made } = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"], description: "for somebody@example.com", user_id: null });
    const { body: next } = await platform.call("POST", `/v1/api-keys/${made.id}/rotate`, { key, body: { grace_seconds: 60 } });
    expect((await tenant.api("DELETE", `/v1/api-keys/${next.id}`)).status).toBe(204);
    expect((await tenant.api("DELETE", `/v1/api-keys/${next.id}`)).status).toBe(204);
    const { body, text } = await tenant.api("GET", "/v1/audit");
    expect(body.entries).toMatchObject([
      { seq: 3, action: "key.revoked", target: { type: "key", id: next.id }, actor: expect.stringMatching(/^usr_/) },
      { seq: 2, action: "key.rotated", target: { type: "key", id: made.id }, actor: expect.stringMatching(/^key_/), details: { successor: next.id, grace_seconds: 60 } },
      { seq: 1, action: "key.created", target: { type: "key", id: made.id }, actor: expect.stringMatching(/^usr_/), details: { scopes: ["tasks:read"], environment: "live" } },
    ]);
    expect(text).not.toMatch(/@|somebody/);
  });

  it("filters by action, actor and time, page by page", async () => {
    const tenant = await tenantWith(3);
    const { body: made } = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    const get = async (query: string) => (await tenant.api("GET", `/v1/audit?${query}`)).body;
    const [first] = (await get("limit=1")).entries;
    expect((await get("action=key.created")).entries.map((e: { target: { id: string } }) => e.target.id)).toEqual([made.id]);
    expect((await get("actor=operator")).entries).toHaveLength(3);
    expect((await get(`actor=${first.actor}`)).entries).toHaveLength(1);
    expect((await get("from=2999-01-01T00:00:00Z")).entries).toEqual([]);
    expect((await get("to=2001-01-01T00:00:00Z")).entries).toEqual([]);
    expect((await get("from=2001-01-01T00:00:00Z&to=2999-01-01T00:00:00Z")).entries).toHaveLength(4);
    const seen: number[] = [];
    for (let cursor = ""; ; ) {
      const page = await get(`limit=2${cursor && `&cursor=${cursor}`}`);
      seen.push(...page.entries.map((e: { seq: number }) => e.seq));
      if (!page.next_cursor) break;
      cursor = page.next_cursor;
    }
    expect(seen).toEqual([4, 3, 2, 1]);
    for (const query of ["action=nothing.known", "actor=a%20b", "from=yesterday", "to=2027-13-01T00:00:00Z"])
      expectRefusal(await tenant.api("GET", `/v1/audit?${query}`), "INVALID_INPUT", query);
  });
});
