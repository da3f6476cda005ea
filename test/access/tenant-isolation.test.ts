import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listApiKeys, revokeApiKey, rotateApiKey } from "../../shared/access/api-keys.ts";
import { type Caller, SCOPES } from "../../shared/access/caller.ts";
import { openKeyRing } from "../../shared/access/key-ring.ts";
import { openTenantSecrets } from "../../shared/access/tenant-secrets.ts";
import { openDatabase } from "../../shared/db/database.ts";
import { asId, newId, parseId, type TaskId, type TenantId } from "../../shared/ids.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";
import { findSubscriptions } from "../../shared/registry/subscriptions.ts";
import { cancelTask, findArtifact, findTask, listTasks, readTaskEvents } from "../../shared/tasks/read-tasks.ts";
import { filer } from "../batteries/plugins.ts";
import { expectNothingWritten, rowCounts } from "../batteries/row-counts.ts";
import { append } from "../conversations/exchange.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker } from "../support/plugins.ts";
import { keepWaiting } from "../support/waiting-artifact.ts";

let platform: TestPlatform;
let admin: pg.Client;
let owner: TestTenant;
let stranger: TestTenant;
let ownersTask: TaskId;
const secrets = openTenantSecrets(openKeyRing({ id: "k1", key: "k".repeat(32) }));

beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [filer, asker] });
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
  [owner, stranger] = [await platform.tenant(), await platform.tenant()];
  const { body } = await owner.api("POST", "/v1/tasks", { command: "mine", plugin: "filer" }, { prefer: "wait=20", "idempotency-key": "mine" });
  ownersTask = parseId("task", body.task_id) ?? newId("task");
  await keepWaiting(platform.db, ownersTask);
  await owner.api("POST", "/v1/tasks", { command: "What is mine?", plugin: "asker" }, { prefer: "wait=20" });
  await owner.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  await secrets.put(platform.db, owner.tenantId, "operator", "filer", "token", "the owner's secret");
  await append(platform.db, { tenantId: owner.tenantId, userId: owner.userId });
  await plantRows(owner.tenantId);
  await admin.query("INSERT INTO tenant_plugin_config (tenant_id, plugin_id, config) SELECT $1, id, '{}' FROM plugins WHERE name = 'filer'", [owner.tenantId]);
});
afterAll(async () => {
  await admin?.end();
  await platform?.stop();
});

/** In the tables that only documents and tickets would fill. */
async function plantRows(tenantId: TenantId): Promise<void> {
  const document = newId("document");
  await admin.query("INSERT INTO knowledge_documents (id, tenant_id, sha256, media_type, content, bytes) VALUES ($1, $2, 'x', 'text/plain', 'words', 5)", [document, tenantId]);
  await admin.query(
    "INSERT INTO org_knowledge_chunks (tenant_id, document_id, edition, position, heading, content, token_count, embedding_model, embedding) VALUES ($1, $2, gen_random_uuid(), 0, '', 'words', 1, 'none', '{}')",
    [tenantId, document],
  );
  await admin.query("INSERT INTO chained_steps (task_id, parent, key, step, tenant_id) VALUES ($1, 'main', 'x', 'main.1', $2)", [ownersTask, tenantId]);
  await closeMonth(platform.db, tenantId, `${new Date().toISOString().slice(0, 7)}-01`);
  await admin.query("INSERT INTO ticket_counters (tenant_id, last_number) VALUES ($1, 1)", [tenantId]);
  await admin.query(
    "INSERT INTO tickets (tenant_id, number, fingerprint, title, type, priority, source_task, source_plugin) VALUES ($1, 1, repeat('0', 64), 'mine', 'bug', 'low', $2, 'filer')",
    [tenantId, ownersTask],
  );
  const erasure = newId("erasure");
  await admin.query("INSERT INTO erasure_requests (id, tenant_id, subject_sha256, user_id, requested_by) VALUES ($1, $2, 'x', $3, 'user')", [erasure, tenantId, newId("user")]);
  await admin.query("INSERT INTO removed_users (tenant_id, user_id) VALUES ($1, $2)", [tenantId, newId("user")]);
  await admin.query("INSERT INTO erasure_items (erasure_id, tenant_id, kind, item_id) VALUES ($1, $2, 'task', $3)", [erasure, tenantId, newId("task")]);
  await admin.query("INSERT INTO ticket_events (tenant_id, number, type, task_id) VALUES ($1, 1, 'created', $2)", [tenantId, ownersTask]);
  await admin.query("INSERT INTO webhooks (id, tenant_id, url, events, secret, secret_key_id) VALUES ($1, $2, 'https://example.com', '{quota.warning}', '', 'k1')", [
    newId("webhook"),
    tenantId,
  ]);
  await admin.query("SELECT enqueue_webhook_event($1, 'quota.warning', 'mine', '{}')", [tenantId]);
  await admin.query("INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, at, ms) SELECT id, 1, tenant_id, now(), 1 FROM webhook_deliveries WHERE tenant_id = $1", [
    tenantId,
  ]);
}

async function tenantTables(): Promise<string[]> {
  const { rows } = await admin.query<{ name: string }>(
    "SELECT table_name AS name FROM information_schema.columns JOIN information_schema.tables t USING (table_schema, table_name) WHERE table_schema = 'public' AND column_name = 'tenant_id' AND t.table_type = 'BASE TABLE' ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

/** Runs statements as the application's role, for a tenant or for none, and leaves nothing behind. */
async function asApp<T>(tenantId: TenantId | null, work: () => Promise<T>): Promise<T> {
  await admin.query("BEGIN");
  try {
    await admin.query("SELECT set_config('role', 'aau_app', true), set_config('app.tenant', $1, true)", [tenantId ?? ""]);
    return await work();
  } finally {
    await admin.query("ROLLBACK");
  }
}
/** What a role may do to no row of a table, it may not do to a stranger's. */
const notGranted = (error: unknown): number => {
  expect(String(error)).toMatch(/permission denied/);
  return 0;
};
const countOf = async (table: string) => Number((await admin.query<{ n: string }>(`SELECT count(*) AS n FROM ${pg.escapeIdentifier(table)}`)).rows[0]?.n);

describe("row-level security", () => {
  it("is forced on every table that holds tenants' rows, by a policy that reads the tenant", async () => {
    const tables = await tenantTables();
    expect(tables.length).toBeGreaterThanOrEqual(13);
    for (const table of [...tables, "tenants"]) {
      const { rows } = await admin.query("SELECT relrowsecurity AS enabled, relforcerowsecurity AS forced FROM pg_class WHERE oid = $1::regclass", [`public.${table}`]);
      expect(rows, table).toEqual([{ enabled: true, forced: true }]);
      const policies = await admin.query<{ policyname: string; qual: string; permissive: string; cmd: string }>(
        "SELECT policyname, qual, permissive, cmd FROM pg_policies WHERE tablename = $1 AND 'aau_app' = ANY (roles)",
        [table],
      );
      const own = policies.rows.filter(({ qual }) => qual.includes("app_tenant()"));
      expect(own, table).toHaveLength(1);
      // A second policy would add rows to what the tenant's own shows; only the key's look-up may.
      const others = policies.rows.filter((policy) => policy !== own[0]).map(({ policyname, cmd }) => [policyname, cmd]);
      expect(others, table).toEqual(table === "api_keys" ? [["holder_of_the_key", "SELECT"]] : []);
      const open = await admin.query("SELECT 1 FROM pg_policies WHERE tablename = $1 AND 'public' = ANY (roles)", [table]);
      expect(open.rows, table).toEqual([]);
    }
  });

  it("cannot be bypassed by the platform's roles", async () => {
    const { rows } = await admin.query("SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname LIKE 'aau\\_%' ORDER BY 1");
    expect(rows).toEqual(["aau_app", "aau_platform"].map((rolname) => ({ rolname, rolsuper: false, rolbypassrls: false, rolcanlogin: false })));
    const owned = await admin.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public' AND tableowner LIKE 'aau\\_%'");
    expect(owned.rows).toEqual([]);
    const definers = await admin.query(
      "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' WHERE n.nspname = 'public' AND p.prosecdef AND d.objid IS NULL",
    );
    expect(definers.rows).toEqual([]);
  });

  it("shows nothing without a tenant, and nothing of another", async () => {
    const all = await rowCounts(platform.env.DATABASE_URL ?? "");
    for (const table of await tenantTables()) {
      expect(all[table], `the test has rows in ${table}`).toBeGreaterThan(0);
      expect(await asApp(null, () => countOf(table)), `${table} without a tenant`).toBe(0);
      expect(await asApp(newId("tenant"), () => countOf(table)), `${table} as nobody`).toBe(0);
      const seen = await asApp(stranger.tenantId, async () =>
        (await admin.query<{ tenant_id: string }>(`SELECT DISTINCT tenant_id FROM ${table}`)).rows.map((row) => row.tenant_id),
      );
      expect(
        seen.filter((id) => id !== stranger.tenantId),
        `${table} as a stranger`,
      ).toEqual([]);
      expect(await asApp(owner.tenantId, () => countOf(table)), `${table} as its owner`).toBeGreaterThan(0);
    }
    expect(await asApp(null, () => countOf("tenants"))).toBe(0);
    expect(await asApp(stranger.tenantId, () => countOf("tenants"))).toBe(1);
  });

  it("lets nobody change or delete another tenant's rows, or plant some", async () => {
    const reached = (text: string) => asApp(stranger.tenantId, () => admin.query(text, [owner.tenantId])).then((answer) => answer.rowCount, notGranted);
    for (const table of await tenantTables()) {
      expect(await reached(`UPDATE ${table} SET tenant_id = tenant_id WHERE tenant_id = $1`), table).toBe(0);
      expect(await reached(`DELETE FROM ${table} WHERE tenant_id = $1`), table).toBe(0);
      await expect(
        asApp(owner.tenantId, () => admin.query(`UPDATE ${table} SET tenant_id = $1`, [stranger.tenantId])),
        `${table} moved to a stranger`,
      ).rejects.toThrow(/row-level security|foreign key|permission denied/);
    }
    await expect(
      asApp(stranger.tenantId, () => admin.query("INSERT INTO users (id, tenant_id, email) VALUES ($1, $2, 'spy@example.com')", [newId("user"), owner.tenantId])),
    ).rejects.toThrow(/row-level security/);
    await expect(asApp(stranger.tenantId, () => admin.query("UPDATE tenants SET plan_tier = 'enterprise'"))).rejects.toThrow(/permission denied/);
  });

  it("shows a key's row to who knows the hash of the whole key, and no other row", async () => {
    const { rows } = await admin.query<{ key_hash: string }>("SELECT key_hash FROM api_keys WHERE tenant_id = $1 LIMIT 1", [owner.tenantId]);
    const seen = await asApp(null, async () => {
      await admin.query("SELECT set_config('app.key_hash', $1, true)", [rows[0]?.key_hash]);
      return (await admin.query("SELECT key_hash FROM api_keys")).rows;
    });
    expect(seen).toEqual(rows);
  });

  it("leaves no role and no tenant on a pooled session", async () => {
    const db = await openDatabase({ url: platform.env.DATABASE_URL ?? "", driver: "pg", poolSize: 1 });
    try {
      const session = () =>
        db.call<{ who: string; tenant: string | null; hash: string | null }>(
          "SELECT current_user AS who, nullif(current_setting('app.tenant', true), '') AS tenant, nullif(current_setting('app.key_hash', true), '') AS hash",
          [],
        );
      const [before] = await session();
      await findTask(db, owner.tenantId, ownersTask);
      await db.call("SELECT * FROM identify_key($1)", ["0".repeat(64)]);
      await cancelTask(db, owner.tenantId, ownersTask);
      await db.tenant(owner.tenantId, () => Promise.reject(new Error("rolled back"))).catch(() => {});
      expect(await session()).toEqual([before]);
      expect(before).toMatchObject({ tenant: null, hash: null });
      expect(before?.who).not.toMatch(/^aau_/);
    } finally {
      await db.close();
    }
  });
});

describe("every query of the domain", () => {
  it("finds nothing of another tenant and changes nothing there", async () => {
    const { db } = platform;
    const key = asId("key", parseId("key", (await owner.api("GET", "/v1/api-keys")).body.keys[0].id) ?? "");
    const own: Omit<Caller, "tenantId"> = { keyId: newId("key"), userId: null, scopes: SCOPES, environment: "live", tier: "starter", limits: { perTenant: 1, perPlugin: 1 } };
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const before = (await owner.api("GET", "/v1/api-keys")).body;
      expect(await findTask(db, stranger.tenantId, ownersTask)).toBeNull();
      expect(await listTasks(db, stranger.tenantId, {}, null, 100)).toEqual([]);
      expect(await readTaskEvents(db, stranger.tenantId, ownersTask, 0, 100)).toBeNull();
      expect(await findArtifact(db, stranger.tenantId, ownersTask, "report.txt")).toBeNull();
      expect(await cancelTask(db, stranger.tenantId, ownersTask)).toBeNull();
      expect((await listApiKeys(db, stranger.tenantId, null, 100)).map((row) => row.id)).not.toContain(key);
      expect(await revokeApiKey(db, stranger.tenantId, "operator", key)).toBeNull();
      expect(await rotateApiKey(db, { ...own, tenantId: stranger.tenantId }, key, 0)).toBeNull();
      expect(await secrets.reveal(db, stranger.tenantId, "filer", ["token"])).toEqual({});
      expect((await owner.api("GET", "/v1/api-keys")).body).toEqual(before);
    });
    expect(await findArtifact(db, owner.tenantId, ownersTask, "report.txt")).not.toBeNull();
    expect(await secrets.reveal(db, owner.tenantId, "filer", ["token", "other"])).toEqual({ token: "the owner's secret" });
    expect(await findSubscriptions(db, owner.tenantId)).toEqual(new Set(["asker", "filer"]));
    expect(await findSubscriptions(db, newId("tenant"))).toEqual(new Set());
  });

  it("does nothing for a stranger in the SQL functions that take a tenant", async () => {
    const { db } = platform;
    const { rows } = await admin.query<{ name: string; args: string[] }>(
      "SELECT p.proname AS name, p.proargnames[1:p.pronargs] AS args FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public' AND 'p_tenant' = ANY (p.proargnames) ORDER BY 1",
    );
    // Each either names a row of the tenant's (and finds none here) or makes one for the tenant that it is given.
    const making = new Set(["ask_caller", "close_month", "reserve_executions", "put_document", "put_tenant_secret", "seal_tenant_secret", "enter_tenant"]);
    expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining([...making]));
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const { rows: tokens } = await admin.query<{ lease_token: string | null }>("SELECT lease_token FROM tasks WHERE id = $1", [ownersTask]);
      for (const { name, args } of rows.filter((row) => !making.has(row.name))) {
        const values = args.map((arg) =>
          arg === "p_tenant" ? stranger.tenantId : /^p_(id|task)$/.test(arg) ? ownersTask : arg === "p_lease" ? (tokens[0]?.lease_token ?? newId("call")) : null,
        );
        const events = args.map((arg, at) => (/events|steps/.test(arg) ? "[]" : values[at]));
        const holders = args.map((_, at) => `$${at + 1}`).join(", ");
        await db.call(`SELECT * FROM ${name}(${holders})`, events);
      }
    });
    expect((await findTask(db, owner.tenantId, ownersTask))?.status).toBe("success");
  });

  it("does nothing for a stranger in the SQL functions that work for many", async () => {
    const { db } = platform;
    const [id, lease] = [newId("task"), randomUUID()];
    await admin.query(
      `INSERT INTO tasks (id, tenant_id, environment, plugin_name, plan, status, routing_method, request_id, deadline, attempt, lease_token, lease_until)
        VALUES ($1, $2, 'live', 'asker', '[]', 'running', 'explicit', 'req_1', now() + interval '1 hour', 1, $3, now() + interval '1 hour')`,
      [id, owner.tenantId, lease],
    );
    const end = { place: 0, id, lease, status: "success", result: {}, error: null, steps: [], events: [] };
    const settle = (tenant: string) => db.call("SELECT settled FROM settle_tasks($1)", [JSON.stringify([{ ...end, tenant }])]);
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      expect(await settle(stranger.tenantId)).toEqual([{ settled: false }]);
      expect(await db.call("SELECT * FROM read_tasks($1, $2)", [[stranger.tenantId], [id]])).toEqual([]);
    });
    expect(await settle(owner.tenantId)).toEqual([{ settled: true }]);
  });
});
