/**
 * The plugin that stands in for another one, as the other's manifest names it.
 *
 * Two books say two things of such an execution, on purpose. The meter (`execution_events`) names the plugin that ran. The quota stays with the
 * plugin that was asked for: its execution was reserved when the task was admitted, a fallback's quota that is used up must not fail a task in
 * the middle, and a caller who never asked for the fallback must not find its quota smaller.
 */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { Manifest } from "../sdk/src/manifest.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";

const Row = v.object({ plugin: v.string(), version: v.string(), endpoint: v.string(), manifest: Manifest, config: v.record(v.string(), v.unknown()) });

/**
 * The step for the fallback, at the version that the task is locked to from its first use on. Null: the manifest names none, the
 * tenant is not subscribed to it, no version of it is live, or the lease is lost.
 */
export async function fallbackOf(db: TenantDb, claim: Claim, step: ClaimedStep): Promise<ClaimedStep | null> {
  const { fallback } = step.manifest;
  if (fallback === null || fallback === step.plugin) return null;
  const [row] = await db.call("SELECT * FROM lock_fallback($1, $2, $3, $4, $5)", [claim.tenantId, claim.taskId, claim.leaseToken, step.id, fallback]);
  return row ? { ...step, ...v.parse(Row, row) } : null;
}
