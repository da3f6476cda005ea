import { inspect } from "node:util";
import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { migrate } from "../../scripts/migrate.ts";
import { rotate } from "../../scripts/secrets-rotate.ts";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { openKeyRing, type RingKey, readRingKeys } from "../../shared/access/key-ring.ts";
import { rotateSecrets } from "../../shared/access/rotate-secrets.ts";
import { openTenantSecrets, type TenantSecrets } from "../../shared/access/tenant-secrets.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { ConfigError, readConfig } from "../../shared/host/config.ts";
import type { TenantId } from "../../shared/ids.ts";
import { freshDatabase, type RunningPostgres, startPostgres } from "../support/postgres.ts";

const [OLD, NEW]: [RingKey, RingKey] = [
  { id: "k1", key: "the-old-key-of-the-ring-0123456789" },
  { id: "k2", key: "the-new-key-of-the-ring-9876543210" },
];
const holding = (current: RingKey, ...others: RingKey[]) => openTenantSecrets(openKeyRing(current, others));
const [old, both, fresh] = [holding(OLD), holding(NEW, OLD), holding(NEW)];

let url: string;
let db: Database;
let tenantId: TenantId;
beforeAll(async () => {
  url = await freshDatabase(inject("postgresUrl"));
  db = await openDatabase({ url, driver: "pg", poolSize: 4, waitMs: 30_000 });
});
beforeEach(async () => {
  await db.platform((tx) => sql`DELETE FROM tenant_secrets`.execute(tx));
  ({ tenantId } = await seedTenant(db, { name: "ring", tier: "starter", subscriptions: {} }));
});
afterAll(() => db?.close());

const put = (secrets: TenantSecrets, name = "token", value = "the value") => secrets.put(db, tenantId, "operator", "keeper", name, value);
const reveal = (secrets: TenantSecrets, ...names: string[]) => secrets.reveal(db, tenantId, "keeper", names.length > 0 ? names : ["token"]);
const keyIds = async () =>
  (await db.platform((tx) => sql<{ key_id: string; n: number }>`SELECT key_id, count(*)::int AS n FROM tenant_secrets GROUP BY key_id ORDER BY 1`.execute(tx))).rows;

describe("the key ring", () => {
  it("opens what any of its keys sealed, and seals with the current one", async () => {
    await put(old, "first");
    await put(both, "second");
    expect(await reveal(both, "first", "second", "third")).toEqual({ first: "the value", second: "the value" });
    expect(await keyIds()).toEqual([
      { key_id: "k1", n: 1 },
      { key_id: "k2", n: 1 },
    ]);
    await put(both, "first");
    expect(await keyIds()).toEqual([{ key_id: "k2", n: 2 }]);
  });

  it("without the key that sealed a secret says so, to the log only", async () => {
    await put(old);
    const error = await reveal(fresh).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: "SERVICE_UNAVAILABLE",
      message: "A secret of this plugin cannot be opened now.",
      cause: { message: "tenant_secrets: no key has the id k1" },
    });
  });

  it("with another key under the old name opens nothing, and shows neither key nor value", async () => {
    await put(old);
    const error = await reveal(holding({ id: "k1", key: NEW.key })).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "SERVICE_UNAVAILABLE", cause: { message: expect.stringContaining("is not the one that sealed it") } });
    expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/the-|the value/);
  });

  it.each([
    "secret_name = 'other'",
    "plugin_name = 'ticket'",
    "tenant_id = (SELECT id FROM tenants WHERE name = 'elsewhere')",
  ])("opens nothing that was moved: %s", async (change) => {
    const stranger = await seedTenant(db, { name: "elsewhere", tier: "starter", subscriptions: {} });
    await put(both);
    await db.platform((tx) => sql`UPDATE tenant_secrets SET ${sql.raw(change)}`.execute(tx));
    for (const tenant of [tenantId, stranger.tenantId]) {
      for (const plugin of ["keeper", "ticket"]) {
        const seen = await both.reveal(db, tenant, plugin, ["token", "other"]).catch((error: unknown) => error);
        expect(JSON.stringify(seen)).not.toContain("the value");
      }
    }
  });

  it("keeps nothing of a value or a key in the table", async () => {
    await put(both);
    const { rows } = await db.platform((tx) =>
      sql<{ row: string; bytes: string }>`SELECT s::text AS row, encode(secret_value, 'escape') AS bytes FROM tenant_secrets s`.execute(tx),
    );
    expect(JSON.stringify(rows)).not.toMatch(/the value|the-new-key/);
  });

  it("refuses two keys of one name", () => {
    expect(() => openKeyRing(OLD, [{ id: "k1", key: NEW.key }])).toThrow(/two keys .* k1/);
  });

  it("reads keys from the environment, and repeats none that is wrong", () => {
    expect(readRingKeys(`k0=${OLD.key}=, k2=${NEW.key},`)).toEqual([
      { id: "k0", key: `${OLD.key}=` },
      { id: "k2", key: NEW.key },
    ]);
    expect(readConfig({}).SECRETS_KEY_ID).toBe("k1");
    for (const wrong of ["hunter2", "=hunter2", "k1=hunter2", `K1=${OLD.key}`, `${OLD.key}=k1`]) {
      const reading = () => readConfig({ SECRETS_OTHER_KEYS: wrong });
      expect(reading, wrong).toThrow(ConfigError);
      expect(reading, wrong).toThrow(/SECRETS_OTHER_KEYS/);
      expect(reading, wrong).not.toThrow(/hunter2|the-old/);
    }
  });
});

describe("secrets:rotate", () => {
  const MANY = 250;
  const names = Array.from({ length: MANY }, (_, n) => `token_${n}`);
  const fill = () => Promise.all(names.map((name) => put(old, name, `value of ${name}`)));
  const expected = Object.fromEntries(names.map((name) => [name, `value of ${name}`]));

  it("seals everything with the current key, after which the old one may go", async () => {
    await fill();
    expect(await rotateSecrets(db, openKeyRing(NEW, [OLD]))).toEqual({ resealed: MANY, unreadable: 0 });
    expect(await keyIds()).toEqual([{ key_id: "k2", n: MANY }]);
    expect(await reveal(fresh, ...names)).toEqual(expected);
    expect(await rotateSecrets(db, openKeyRing(NEW))).toEqual({ resealed: 0, unreadable: 0 });
  });

  it("goes on where it was stopped, and executions read all the while", async () => {
    await fill();
    let batches = 0;
    const stopped: Database = {
      ...db,
      call: async (text, values) => {
        if (batches++ > 0) throw new Error("stopped");
        return db.call(text, values);
      },
    };
    await expect(rotateSecrets(stopped, openKeyRing(NEW, [OLD]))).rejects.toThrow("stopped");
    expect(await keyIds()).toEqual([
      { key_id: "k1", n: 150 },
      { key_id: "k2", n: 100 },
    ]);
    expect(await reveal(both, ...names)).toEqual(expected);
    expect(await rotateSecrets(db, openKeyRing(NEW, [OLD]))).toEqual({ resealed: 150, unreadable: 0 });
    expect(await reveal(fresh, ...names)).toEqual(expected);
  });

  it("may run twice at once, beside tenants who set secrets", async () => {
    await fill();
    const ring = openKeyRing(NEW, [OLD]);
    const [one, two] = await Promise.all([rotateSecrets(db, ring), rotateSecrets(db, ring), ...names.slice(0, 40).map((name) => put(both, name, "newer"))]);
    expect(one.unreadable + two.unreadable).toBe(0);
    expect(await keyIds()).toEqual([{ key_id: "k2", n: MANY }]);
    expect(await reveal(fresh, ...names)).toEqual({ ...expected, ...Object.fromEntries(names.slice(0, 40).map((name) => [name, "newer"])) });
  });

  it("leaves alone what it cannot open, counts it, and prints counts only", async () => {
    await put(old, "good");
    await put(holding({ id: "k0", key: NEW.key }), "unknown");
    await put(holding({ id: "k1", key: NEW.key }), "mislabelled");
    const printed = vi.spyOn(console, "log").mockImplementation(() => {});
    const env = { DATABASE_URL: url, SECRETS_KEY: NEW.key, SECRETS_KEY_ID: "k2", SECRETS_OTHER_KEYS: `k1=${OLD.key}` };
    expect(await rotate(env)).toBe(1);
    expect(printed.mock.calls).toEqual([["1 secrets sealed anew, 2 could not be opened."]]);
    await db.platform((tx) => sql`DELETE FROM tenant_secrets WHERE secret_name <> 'good'`.execute(tx));
    expect(await rotate(env)).toBe(0);
    printed.mockRestore();
    expect(await reveal(fresh, "good")).toEqual({ good: "the value" });
  });
});

describe("PostgreSQL's log", () => {
  let server: RunningPostgres;
  let logging: Database;
  let client: pg.Client;
  const written: string[] = [];
  beforeAll(async () => {
    // All that an operator can switch on, and more than anybody should.
    const settings = ["log_statement=all", "log_min_duration_statement=0", "log_min_error_statement=debug5"];
    server = await startPostgres({ flags: settings.flatMap((setting) => ["-c", setting]), onLog: (text) => void written.push(text) });
    await migrate(server.url);
    logging = await openDatabase({ url: server.url, driver: "pg", poolSize: 1 });
    client = new pg.Client({ connectionString: server.url });
    await client.connect();
  });
  afterAll(async () => {
    await client?.end();
    await logging?.close();
    await server?.stop();
  });

  async function parametersLogged(length: number): Promise<void> {
    const settings = ["log_parameter_max_length", "log_parameter_max_length_on_error"];
    for (const setting of settings) await client.query(`ALTER SYSTEM SET ${setting} = ${length}`);
    await client.query("SELECT pg_reload_conf()");
    for (const setting of settings) await expect.poll(async () => (await client.query(`SHOW ${setting}`)).rows).toEqual([{ [setting]: String(length) }]);
  }

  async function use(value: string): Promise<string> {
    const seeded = await seedTenant(logging, { name: `tenant-${written.length}`, tier: "starter", subscriptions: {} });
    await both.put(logging, seeded.tenantId, "operator", "keeper", "token", value);
    expect(await both.reveal(logging, seeded.tenantId, "keeper", ["token"])).toEqual({ token: value });
    const errors = [
      await holding({ id: "k2", key: OLD.key })
        .reveal(logging, seeded.tenantId, "keeper", ["token"])
        .catch((error: unknown) => error),
      await both.put(logging, seeded.userId as unknown as TenantId, "operator", "keeper", "token", value).catch((error: unknown) => error),
    ];
    for (const error of errors) {
      expect(error).toBeInstanceOf(Error);
      expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(value);
      expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/the-(old|new)-key/);
    }
    const marker = `end of ${seeded.tenantId}`;
    await client.query(`SELECT '${marker}'`);
    await expect.poll(() => written.join("\n")).toContain(marker);
    return written.join("\n");
  }

  it("never holds a key of the ring, however much is logged", async () => {
    await parametersLogged(-1);
    const text = await use("canary-one");
    expect(text).toContain("seal_tenant_secret");
    expect(text).toContain("canary-one");
    expect(text).toContain("Wrong key or corrupt data");
    expect(text).not.toMatch(/the-(old|new)-key/);
  });

  it("holds no secret either, once parameters are kept out of it", async () => {
    await parametersLogged(0);
    written.length = 0;
    const text = await use("canary-two");
    expect(text).toContain("seal_tenant_secret");
    expect(text).not.toContain("canary-two");
  });
});
