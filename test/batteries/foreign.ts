/** Something of every kind that belongs to one tenant, to be asked for by another; and whether anything of that tenant changed. */
import pg from "pg";
import type { PlatformDb } from "../../shared/db/database.ts";
import type { HttpFunction } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";
import { newUser } from "../privacy/people.ts";
import type { TestTenant } from "../support/platform.ts";
import { operationOf } from "./declared.ts";

/** By the prefix of the ids; a new kind of id needs a line here. The tenant is subscribed to `echo`. */
export async function plantOneOfEach(tenant: TestTenant, db: PlatformDb): Promise<Record<string, string>> {
  const task = await tenant.api("POST", "/v1/tasks", { command: "for nobody else", plugin: "echo" });
  const key = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  const document = await tenant.api("POST", "/v1/knowledge", { content: "For nobody else." });
  const user = await tenant.api("POST", "/v1/users", { email: "nobody.else@example.com", role: "viewer" });
  const webhook = await tenant.api("POST", "/v1/webhooks", { url: "https://hooks.aau.io/", events: ["quota.warning"] });
  await db.call("SELECT enqueue_webhook_event($1, 'quota.warning', 'for nobody else', '{}')", [tenant.tenantId]);
  const deliveries = await tenant.api("GET", `/v1/webhooks/${webhook.body.webhook_id}/deliveries`);
  const { subscriptions } = (await tenant.api("GET", "/v1/subscriptions")).body;
  await closeMonth(db, tenant.tenantId, `${new Date().toISOString().slice(0, 7)}-01`);
  const { invoices } = (await tenant.api("GET", "/v1/invoices")).body;
  const erasure = await tenant.api("POST", "/v1/gdpr/erasure-request", { user_id: publicId("user", await newUser(db, tenant.tenantId)) });
  return {
    whk: webhook.body.webhook_id,
    del: deliveries.body.deliveries[0].delivery_id,
    sub: subscriptions[0].subscription_id,
    inv: invoices[0].invoice_id,
    task: task.body.task_id,
    key: key.body.id,
    doc: document.body.document_id,
    usr: user.body.id,
    era: erasure.body.erasure_id,
    ten: publicId("tenant", tenant.tenantId),
  };
}

/** A digest of every row that names the tenant, by table. */
export async function rowsOf(databaseUrl: string, tenant: TestTenant): Promise<Record<string, string>> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      "SELECT quote_ident(c.table_name) AS name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name) WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' AND t.table_type = 'BASE TABLE' ORDER BY 1",
    );
    const digests = tables
      .map(({ name }) => `SELECT '${name}' AS name, md5(coalesce(string_agg(r::text, '|' ORDER BY r::text), '')) AS digest FROM ${name} r WHERE tenant_id = $1`)
      .join(" UNION ALL ");
    const { rows } = await client.query<{ name: string; digest: string }>(digests, [tenant.tenantId]);
    return Object.fromEntries(rows.map(({ name, digest }) => [name, digest]));
  } finally {
    await client.end();
  }
}

interface Shape {
  pattern?: string;
  anyOf?: readonly unknown[];
  type?: unknown;
  properties?: Readonly<Record<string, unknown>>;
}
const ID = /^\^([a-z]+)_\[/;

/** The kinds of ids that a value may be, as the document says. */
function kindsOf(raw: unknown): string[] {
  const schema: Shape = Object(raw);
  const own = ID.exec(schema.pattern ?? "")?.[1];
  return [...(own ? [own] : []), ...(schema.anyOf ?? []).flatMap(kindsOf)];
}

/** Where a function takes an id besides its path: name and kind of each parameter of the query, and of each member of the body. */
export function idsBesidePath(fn: HttpFunction): { place: "query" | "body"; name: string; prefix: string }[] {
  const operation = operationOf(fn);
  const query = (operation.parameters ?? []).filter((p) => p.in === "query").flatMap((p) => kindsOf(p.schema).map((prefix) => ({ place: "query" as const, name: p.name, prefix })));
  const body: Shape = Object(operation.requestBody?.content["application/json"]?.schema);
  const members = Object.entries(body.properties ?? {}).flatMap(([name, schema]) => kindsOf(schema).map((prefix) => ({ place: "body" as const, name, prefix })));
  return [...query, ...members];
}
