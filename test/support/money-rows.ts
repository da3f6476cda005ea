/** What tests of money put into the tables, and read from them, past the functions that do. */
import type { TestPlatform, TestTenant } from "./platform.ts";

/** As if the tenant had tried the plugin as often as that is free. */
export const useUpSandbox = (platform: Pick<TestPlatform, "db">, { tenantId }: Pick<TestTenant, "tenantId">, plugin: string) =>
  platform.db.call("INSERT INTO usage_periods (tenant_id, plugin_name, environment, period_start, used) VALUES ($1, $2, 'sandbox', sandbox_period(), sandbox_limit())", [
    tenantId,
    plugin,
  ]);

/** By plugin: used, reserved. */
export async function quotaOf(platform: Pick<TestPlatform, "db">, { tenantId }: Pick<TestTenant, "tenantId">, environment = "live"): Promise<Record<string, [number, number]>> {
  const rows = await platform.db.call<{ plugin_name: string; used: number; reserved: number }>(
    "SELECT plugin_name, used, reserved FROM usage_periods WHERE tenant_id = $1 AND environment = $2",
    [tenantId, environment],
  );
  return Object.fromEntries(rows.map(({ plugin_name, used, reserved }) => [plugin_name, [used, reserved]]));
}
