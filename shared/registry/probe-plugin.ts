import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { type PluginClient, PluginFailure } from "../execution/plugin-client.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import type { PluginTrust } from "./admit-image.ts";
import { Health } from "./catalogue.ts";
import { makeRoutable } from "./register-plugin.ts";
import { reportHealth } from "./report-health.ts";

const Target = v.object({ name: v.string(), version: v.string(), endpoint: v.string() });
export type ProbeTarget = v.InferOutput<typeof Target>;
const PROBE_TIMEOUT_MS = 30_000;
/** A call wakes a sleeping plugin, so one that is known is seldom asked; one that waits for its first good answer is asked at each run. */
const SELDOM = "5 minutes";

/** Those whose time has come. */
export async function listProbeTargets(db: PlatformDb): Promise<ProbeTarget[]> {
  const rows = await db.call(
    `SELECT p.name, pv.version, pv.endpoint FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id
     WHERE p.status IN ('active', 'deprecated') AND (pv.status = 'pending' OR (pv.status IN ('active', 'deprecated') AND coalesce(pv.probed_at < now() - $1::interval, true)))`,
    [SELDOM],
  );
  return v.parse(v.array(Target), rows);
}

/**
 * What the plugin says of itself. `asleep`: no process of it was there to answer, which is how a service at zero, a pod that starts and a
 * registry's stale address look; it says nothing about the plugin's health. A pod that is being started is waited for, and one that is there and
 * says nothing sensible in all that time is `unhealthy`.
 */
export async function probePlugin(plugins: PluginClient, endpoint: string, signal: AbortSignal): Promise<Health | "asleep"> {
  try {
    return v.parse(Health, await plugins.health(endpoint, AbortSignal.any([signal, timeLimit(PROBE_TIMEOUT_MS)])));
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof PluginFailure && error.isUnreached) return "asleep";
    return { status: "unhealthy", components: { service: "unreachable" }, message: "The health check did not answer as it should." };
  }
}

export interface Probed {
  health: Health | "asleep";
  /** The registry's, where the catalogue changed. */
  generation: string | null;
  /** Versions to which nothing more should be sent. */
  unhealthy: string[];
  /** Work would have come to it, had it not closed this circle. */
  circle: string[] | null;
}

/** Asks, writes down what was said, and lets work come to a version that was pending until now. */
export async function probeVersion(db: PlatformDb, plugins: PluginClient, trust: PluginTrust, { name, version, endpoint }: ProbeTarget, signal: AbortSignal): Promise<Probed> {
  const health = await probePlugin(plugins, endpoint, signal);
  await db.call("SELECT note_probe($1, $2)", [name, version]);
  if (health === "asleep") return { health, generation: null, unhealthy: [], circle: null };
  const reported = await reportHealth(db, name, version, health);
  const routable = health.status === "healthy" ? await makeRoutable(db, trust, name, version) : null;
  return { health, generation: routable?.generation ?? reported?.generation ?? null, unhealthy: reported?.unhealthy ?? [], circle: routable?.circle ?? null };
}
