/**
 * The plugin that stands in for another one, as the other's manifest names it. The execution is the fallback's, in the meter and in the quota: it is
 * reserved on the fallback's own row when it is first needed, and the first plugin's reservation goes back at the end.
 */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { endingOf, Life } from "../registry/plugin-versions.ts";
import { Manifest } from "../sdk/src/manifest.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";

const Row = v.object({ plugin: v.string(), version: v.string(), endpoint: v.string(), manifest: Manifest, config: v.record(v.string(), v.unknown()), ...Life.entries });

/**
 * The step for the fallback, at the version that the task is locked to from its first use on. Null: the manifest names none, the
 * tenant is not subscribed to it or has used up its quota, no version of it is live, or the lease is lost.
 */
export async function fallbackOf(db: TenantDb, claim: Claim, step: ClaimedStep): Promise<ClaimedStep | null> {
  const { fallback } = step.manifest;
  if (fallback === null || fallback === step.plugin) return null;
  const [row] = await db.call("SELECT * FROM lock_fallback($1, $2, $3, $4, $5)", [claim.tenantId, claim.taskId, claim.leaseToken, step.id, fallback]);
  if (!row) return null;
  const { plugin, version, endpoint, manifest, config, ...life } = v.parse(Row, row);
  return { ...step, plugin, version, endpoint, manifest, config, ending: endingOf(life) };
}
