/** Writes the end of a task under its lease: result, step, usage, reservation and events in one transaction. */
import * as v from "valibot";
import { sqlState, type TenantDb } from "../db/database.ts";
import { publicId } from "../ids.ts";
import { ArtifactRef, type OutputEnvelope } from "../sdk/src/envelopes.ts";
import type { StoredError, StoredResult } from "../tasks/task-view.ts";
import type { Claim } from "./claim-task.ts";
import type { ProgressEvent } from "./lease.ts";

export type Settlement = { latencyMs: number } & (
  | { kind: "output"; output: OutputEnvelope; answeredBy?: { plugin: string; version: string } }
  | { kind: "failed"; error: StoredError; output: OutputEnvelope | null }
  | { kind: "cancelled" }
  | { kind: "lost" }
);

/** False: the lease is lost and nothing was written. */
export async function settleTask(db: TenantDb, claim: Claim, settlement: Settlement, events: readonly ProgressEvent[]): Promise<boolean> {
  if (settlement.kind === "lost") return false;
  try {
    return await write(db, claim, settlement, events);
  } catch (error) {
    // Class 22 is data that PostgreSQL cannot hold, 54 is a limit of its: then the plugin's result is at fault, and the task must still end.
    const state = sqlState(error);
    if (settlement.kind === "output" && (error instanceof RangeError || (state !== null && /^(22|54)/.test(state)))) {
      const failure: StoredError = { code: "INTERNAL", message: "The plugin's result cannot be stored.", cause: "plugin" };
      return write(db, claim, { kind: "failed", error: failure, output: null, latencyMs: settlement.latencyMs }, []);
    }
    throw error;
  }
}

async function write(db: TenantDb, claim: Claim, settlement: Exclude<Settlement, { kind: "lost" }>, events: readonly ProgressEvent[]): Promise<boolean> {
  const status = settlement.kind === "output" ? settlement.output.status : settlement.kind;
  const output = settlement.kind === "cancelled" ? null : settlement.output;
  const result = output ? await storedResult(db, claim, output, settlement.latencyMs) : null;
  const error = settlement.kind === "failed" ? settlement.error : null;
  const answeredBy = (settlement.kind === "output" && settlement.answeredBy) || claim.steps[0];
  const step = {
    step: claim.steps[0].id,
    plugin_name: answeredBy.plugin,
    plugin_version: answeredBy.version,
    attempt: claim.attempt,
    status,
    output: result ?? {},
    latency_ms: settlement.latencyMs,
  };
  const [row] = await db.call<{ settled: boolean }>("SELECT settle_task($1, $2, $3, $4, $5, $6, $7, $8) AS settled", [
    claim.tenantId,
    claim.taskId,
    claim.leaseToken,
    status,
    result === null ? null : storableJson(result),
    error === null ? null : storableJson(error),
    storableJson([step]),
    storableJson(events),
  ]);
  return row?.settled ?? false;
}

async function storedResult(db: TenantDb, claim: Claim, output: OutputEnvelope, latencyMs: number): Promise<StoredResult> {
  return {
    result: output.result,
    data: output.data,
    artifacts: output.artifacts.length === 0 ? [] : await storedArtifacts(db, claim),
    confidence: output.confidence,
    next_steps: output.next_steps,
    warnings: output.warnings,
    deprecation_warning: output.deprecation_warning,
    execution_meta: {
      latency_seconds: Math.round(latencyMs) / 1000,
      agents_invoked: output.execution_meta.agents_invoked,
      model_used: output.execution_meta.model_used,
      budget_exceeded: output.execution_meta.budget_exceeded,
    },
  };
}

/** What was really stored for this task, whatever the plugin says. */
async function storedArtifacts(db: TenantDb, claim: Claim): Promise<ArtifactRef[]> {
  const rows = await db.tenant(claim.tenantId, (tx) =>
    tx
      .selectFrom("artifacts")
      .select(["id", "name", "media_type", "size_bytes", "sha256"])
      .where("tenant_id", "=", claim.tenantId)
      .where("task_id", "=", claim.taskId)
      .orderBy("name")
      .execute(),
  );
  return v.parse(
    v.array(ArtifactRef),
    rows.map((row) => ({ artifact_id: publicId("artifact", row.id), name: row.name, media_type: row.media_type, size_bytes: Number(row.size_bytes), sha256: row.sha256 })),
  );
}

/** Gives the task back to the queue. False: the lease is lost. */
export async function handBack(db: TenantDb, claim: Claim, delayMs: number): Promise<boolean> {
  const [row] = await db.call<{ handed_back: boolean }>("SELECT hand_back_task($1, $2, $3, $4) AS handed_back", [
    claim.tenantId,
    claim.taskId,
    claim.leaseToken,
    Math.round(delayMs),
  ]);
  return row?.handed_back ?? false;
}

/** JSON that jsonb takes: it knows neither NUL nor lone surrogates. */
function storableJson(value: unknown): string {
  const json = JSON.stringify(value);
  return /\\u0000|\\ud[89a-f]/i.test(json) ? JSON.stringify(storable(value)) : json;
}

function storable(value: unknown): unknown {
  if (typeof value === "string") return value.replaceAll("\0", "").toWellFormed();
  if (Array.isArray(value)) return value.map(storable);
  if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([key, member]) => [storable(key), storable(member)]));
  return value;
}
