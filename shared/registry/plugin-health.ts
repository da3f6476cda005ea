import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import { Health } from "./catalogue.ts";

const Row = v.object({ version: v.string(), health: Health, health_at: v.nullable(v.date()) });

/** Health of the newest live version; null when this tenant knows of no such plugin. */
export async function findHealth(db: Pick<TenantDb, "call">, tenantId: TenantId, plugin: string) {
  const [raw] = await db.call(
    `SELECT pv.version, pv.health, pv.health_at FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id
     WHERE p.name = $1 AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = $2) AND p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')
     ORDER BY pv.version_sort[4] DESC, pv.version_sort DESC LIMIT 1`,
    [plugin, tenantId],
  );
  if (!raw) return null;
  const { version, health, health_at } = v.parse(Row, raw);
  return { plugin, version, status: health.status, components: health.components, message: health.message ?? null, checked_at: health_at?.toISOString() ?? null };
}
