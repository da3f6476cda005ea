/** Statements on a tenant's configuration of a plugin. */
import { sql } from "kysely";
import * as v from "valibot";
import { type AuditActor, recordAudit } from "../access/audit-log.ts";
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

const Config = v.record(v.string(), v.unknown());
const Row = v.object({ config: Config, version: v.string(), updated_at: v.date() });
const Put = v.object({ version: v.string(), updated_at: v.date() });

/** As a caller sends it; valibot takes a list for a record. */
export const GivenConfig = v.pipe(
  v.custom<Record<string, unknown>>((value) => typeof value === "object" && value !== null && !Array.isArray(value), "must be an object"),
  v.metadata({ type: "object" }),
  v.description("What the plugin's `config_schema` describes; any object where it has none. Secrets do not belong here."),
);

export const PluginConfigView = v.strictObject({
  plugin: v.string(),
  config: Config,
  version: v.pipe(v.number(), v.integer(), v.description("Counts the changes; 0 as long as nothing was set. Send it as `If-Match` to replace this configuration and no other.")),
  updated_at: v.nullable(v.pipe(v.string(), v.isoTimestamp())),
});
export type PluginConfigView = v.InferOutput<typeof PluginConfigView>;

/** The empty configuration where none was set. */
export async function findPluginConfig(db: TenantDb, tenantId: TenantId, plugin: string): Promise<PluginConfigView> {
  const raw = await db.tenant(tenantId, (tx) =>
    tx
      .selectFrom("tenant_plugin_config as c")
      .innerJoin("plugins as p", "p.id", "c.plugin_id")
      .select(["c.config", "c.version", "c.updated_at"])
      .where("c.tenant_id", "=", tenantId)
      .where("p.name", "=", plugin)
      .executeTakeFirst(),
  );
  if (!raw) return { plugin, config: {}, version: 0, updated_at: null };
  const { config, version, updated_at } = v.parse(Row, raw);
  return { plugin, config, version: Number(version), updated_at: updated_at.toISOString() };
}

/** Replaces it; a task that is claimed from now on gets this one. Null: `version` is given, and is not the one there is. */
export async function putPluginConfig(
  db: TenantDb,
  tenantId: TenantId,
  actor: AuditActor,
  plugin: string,
  config: Record<string, unknown>,
  version: number | null,
): Promise<PluginConfigView | null> {
  const row = await db.tenant(tenantId, async (tx) => {
    const { rows } = await sql`SELECT version::text AS version, updated_at FROM put_plugin_config(${tenantId}, ${plugin}, ${JSON.stringify(config)}, ${version})`.execute(tx);
    if (rows.length === 0) return null;
    const put = v.parse(Put, rows[0]);
    await recordAudit(tx, tenantId, { actor, action: "config.set", targetType: "plugin", targetId: plugin, details: { version: Number(put.version) } });
    return put;
  });
  if (!row) return null;
  return { plugin, config, version: Number(row.version), updated_at: row.updated_at.toISOString() };
}
