import pg from "pg";
import { afterAll, beforeAll, expect, inject, it } from "vitest";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { newId, type TenantId } from "../../shared/ids.ts";
import { enqueueWebhookEvent, type WebhookEventType } from "../../shared/webhooks/webhook-events.ts";
import { freshDatabase } from "../support/postgres.ts";

let db: Database;
let admin: pg.Client;

beforeAll(async () => {
  const url = await freshDatabase(inject("postgresUrl"));
  db = await openDatabase({ url, driver: "pg", poolSize: 4 });
  admin = new pg.Client({ connectionString: url });
  await admin.connect();
});
afterAll(async () => {
  await admin?.end();
  await db?.close();
});

async function tenantWith(...endpoints: { events: WebhookEventType[]; disabled?: string }[]) {
  const tenantId: TenantId = newId("tenant");
  await admin.query("INSERT INTO tenants (id, name, plan_tier) VALUES ($1, 'acme', 'starter')", [tenantId]);
  const ids = [];
  for (const { events, disabled } of endpoints) {
    const id = newId("webhook");
    ids.push(id);
    await admin.query(
      "INSERT INTO webhooks (id, tenant_id, url, events, secret, secret_key_id, status, disabled_reason, disabled_at) VALUES ($1, $2, 'https://example.com', $3, '', 'k1', $4, $5, now() - $6::interval)",
      [id, tenantId, events, disabled ? "disabled" : "active", disabled ? "by_owner" : null, disabled ?? null],
    );
  }
  return { tenantId, ids };
}
const tell = (tenantId: TenantId, key: string) => db.tenant(tenantId, (tx) => enqueueWebhookEvent(tx, tenantId, { type: "quota.warning", key, data: { plugin: "x" } }));
const deliveriesOf = async (tenantId: TenantId) =>
  (
    await admin.query("SELECT webhook_id, type, event_key, data, status, webhook_event_id(tenant_id, type, event_key) AS event FROM webhook_deliveries WHERE tenant_id = $1", [
      tenantId,
    ])
  ).rows;

it("puts an event down once for each endpoint that asked for its type, and says for whom to ring", async () => {
  const { tenantId, ids } = await tenantWith({ events: ["quota.warning", "task.failed"] }, { events: ["quota.warning"] }, { events: ["task.completed"] });
  expect((await tell(tenantId, "2026-11")).sort()).toEqual([ids[0], ids[1]].sort());
  expect(await tell(tenantId, "2026-11")).toEqual([]);
  const rows = await deliveriesOf(tenantId);
  expect(rows.map((row) => row.webhook_id).sort()).toEqual([ids[0], ids[1]].sort());
  expect(rows[0]).toMatchObject({ type: "quota.warning", event_key: "2026-11", data: { plugin: "x" }, status: "pending", event: rows[1].event });
});

it("puts down nothing when the transaction that tells of it is undone", async () => {
  const { tenantId } = await tenantWith({ events: ["quota.warning"] });
  await db
    .tenant(tenantId, async (tx) => {
      await enqueueWebhookEvent(tx, tenantId, { type: "quota.warning", key: "undone", data: {} });
      throw new Error("undone");
    })
    .catch(() => {});
  expect(await deliveriesOf(tenantId)).toEqual([]);
});

it("holds an event for an endpoint that is disabled, for a month", async () => {
  const { tenantId, ids } = await tenantWith({ events: ["quota.warning"], disabled: "2 days" }, { events: ["quota.warning"], disabled: "31 days" });
  expect(await tell(tenantId, "2026-11")).toEqual([]);
  expect(await deliveriesOf(tenantId)).toMatchObject([{ webhook_id: ids[0], status: "held" }]);
});

it("makes ids in SQL that sort by time like those made in code", async () => {
  const { rows } = await admin.query<{ id: string }>("SELECT new_uuid7()::text AS id");
  const id = rows[0]?.id ?? "";
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(Math.abs(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16) - Date.now())).toBeLessThan(60_000);
});
