import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { seedKey, seedTenant } from "../../scripts/seed-tenant.ts";
import { hashApiKey } from "../../shared/access/api-key.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { freshDatabase } from "../support/postgres.ts";
import { startWebSocketProxy } from "../support/websocket-proxy.ts";

let proxy: Awaited<ReturnType<typeof startWebSocketProxy>>;
let db: Database;

beforeAll(async () => {
  const url = await freshDatabase(inject("postgresUrl"));
  const { hostname, port } = new URL(url);
  proxy = await startWebSocketProxy({ host: hostname, port: Number(port) });
  db = await openDatabase({
    url,
    driver: "neon",
    poolSize: 2,
    neon(config) {
      config.wsProxy = (host, to) => `127.0.0.1:${proxy.port}/v1?address=${host}:${to}`;
      config.useSecureWebSocket = false;
      config.pipelineConnect = false;
      config.pipelineTLS = false;
      config.forceDisablePgSSL = true;
    },
  });
});
afterAll(async () => {
  await db?.close();
  await proxy?.stop();
});

describe("DATABASE_DRIVER=neon", () => {
  it("runs the same statements over a WebSocket: transactions, SQL functions, and their types", async () => {
    const { tenantId, userId } = await seedTenant(db, { name: "neon", tier: "professional", subscriptions: {} });
    const { key } = await seedKey(db, tenantId, { userId });
    const [found] = await db.call<{ tenant_id: string; scopes: string[]; revoked: boolean }>("SELECT * FROM authenticate_key($1)", [hashApiKey(key)]);
    expect(found).toMatchObject({ tenant_id: tenantId, revoked: false });
    expect(found?.scopes).toContain("tasks:write");
    expect(proxy.connections()).toBeGreaterThan(0);
  });

  it("keeps tenants apart as the other driver does", async () => {
    const mine = await seedTenant(db, { name: "mine", tier: "starter", subscriptions: {} });
    const other = await seedTenant(db, { name: "other", tier: "starter", subscriptions: {} });
    const users = await db.tenant(mine.tenantId, (tx) => tx.selectFrom("users").select("tenant_id").execute());
    expect(users).toEqual([{ tenant_id: mine.tenantId }]);
    expect(await db.tenant(mine.tenantId, (tx) => tx.selectFrom("users").select("id").where("tenant_id", "=", other.tenantId).execute())).toEqual([]);
  });
});
