/** How a step of a plan ended, as it is kept in `task_steps`: whatever comes after it reads it from here, in this attempt or a later one. */
import * as v from "valibot";
import { sqlState, type TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { StepStatus, StoredError, StoredResult } from "../tasks/task-view.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import type { ProgressEvent } from "./lease.ts";
import { storableJson } from "./storable-json.ts";

export interface StepRecord {
  id: string;
  plugin: string;
  version: string;
  status: StepStatus;
  /** What it gave; null when it gave nothing. */
  output: StoredResult | null;
  error: StoredError | null;
  /** Null: its plugin was never called. */
  latencyMs: number | null;
}

/** A row of `task_steps` in a claim. */
export const RecordedStep = v.pipe(
  v.object({
    step: v.string(),
    plugin_name: v.string(),
    plugin_version: v.string(),
    status: StepStatus,
    output: v.union([
      StoredResult,
      v.pipe(
        v.strictObject({}),
        v.transform(() => null),
      ),
    ]),
    error: v.nullable(StoredError),
    latency_ms: v.nullable(v.number()),
  }),
  v.transform(
    (row): StepRecord => ({
      id: row.step,
      plugin: row.plugin_name,
      version: row.plugin_version,
      status: row.status,
      output: row.output,
      error: row.error,
      latencyMs: row.latency_ms,
    }),
  ),
);

export const hasSucceeded = (record: StepRecord): boolean => record.status === "success" || record.status === "partial";

export function stepRecord(
  step: ClaimedStep,
  status: StepStatus,
  { output = null, error = null, latencyMs = null }: Partial<Pick<StepRecord, "output" | "error" | "latencyMs">> = {},
): StepRecord {
  return { id: step.id, plugin: step.plugin, version: step.version, status, output, error, latencyMs };
}

/** The row as the SQL functions take it. */
export function stepRow(claim: Claim, record: StepRecord) {
  return {
    step: record.id,
    plugin_name: record.plugin,
    plugin_version: record.version,
    attempt: claim.attempt,
    status: record.status,
    output: record.output ?? {},
    error: record.error,
    confidence: record.output?.confidence ?? null,
    latency_ms: record.latencyMs,
  };
}

/** Class 22 is data that PostgreSQL cannot hold, 54 is a limit of its: then the plugin's result is at fault. */
export const isUnstorable = (error: unknown): boolean => error instanceof RangeError || /^(22|54)/.test(sqlState(error) ?? "");
export const UNSTORABLE: StoredError = { code: "INTERNAL", message: "The plugin's result cannot be stored.", cause: "plugin" };

const Recorded = v.object({ held: v.boolean(), cancel_requested: v.boolean() });

/** Keeps a finished step while others go on. `held` false: the lease is lost, and nothing was written. */
export async function recordStep(db: TenantDb, claim: Claim, record: StepRecord, events: readonly ProgressEvent[]): Promise<{ held: boolean; cancelRequested: boolean }> {
  const values = [claim.tenantId, claim.taskId, claim.leaseToken, storableJson(stepRow(claim, record)), storableJson(events)];
  const write = () => db.call("SELECT held, cancel_requested FROM record_step($1, $2, $3, $4, $5)", values);
  FAILPOINT: await failpoint("step.before_record");
  // Written twice is written once, so a lost answer is asked for again: the step must not be run again for it.
  const [row] = await write().catch((error: unknown) => {
    if (error instanceof Refusal) return write();
    throw error;
  });
  FAILPOINT: await failpoint("step.after_record");
  const { held, cancel_requested } = v.parse(Recorded, row);
  return { held, cancelRequested: cancel_requested };
}
