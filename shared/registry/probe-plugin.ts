import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import type { PluginClient } from "../execution/plugin-client.ts";
import { Health } from "./catalogue.ts";

const Target = v.object({ name: v.string(), version: v.string(), endpoint: v.string() });
const PROBE_TIMEOUT_MS = 30_000;

export async function listProbeTargets(db: PlatformDb) {
  const rows = await db.call(
    `SELECT p.name, pv.version, pv.endpoint FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id
     WHERE p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')`,
    [],
  );
  return v.parse(v.array(Target), rows);
}

/** What the plugin says of itself, or `unhealthy` when it says nothing sensible in time. A cold start is waited for. */
export async function probePlugin(plugins: PluginClient, endpoint: string, signal: AbortSignal): Promise<Health> {
  try {
    return v.parse(Health, await plugins.health(endpoint, AbortSignal.any([signal, AbortSignal.timeout(PROBE_TIMEOUT_MS)])));
  } catch {
    return { status: "unhealthy", components: { service: "unreachable" }, message: "The health check did not answer." };
  }
}
