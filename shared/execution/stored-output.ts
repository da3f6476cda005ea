/** What is kept of a plugin's answer. */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { publicId } from "../ids.ts";
import { ArtifactRef, type OutputEnvelope, type Warning } from "../sdk/src/envelopes.ts";
import { StoredResult } from "../tasks/task-view.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { storableJson } from "./storable-json.ts";

/** `redact` knows the secrets that the plugin was given. An artifact whose name holds one is left out: without its name nobody comes to it. */
export async function storedOutput(
  db: TenantDb,
  claim: Claim,
  step: ClaimedStep,
  output: OutputEnvelope,
  { warnings, latencyMs, redact }: { warnings: readonly Warning[]; latencyMs: number; redact: (text: string) => string },
): Promise<StoredResult> {
  const stored: StoredResult = {
    result: output.result,
    data: output.data,
    artifacts: output.artifacts.length === 0 ? [] : (await storedArtifacts(db, claim, step)).filter(({ name }) => redact(name) === name),
    confidence: output.confidence,
    next_steps: output.next_steps,
    warnings: [...warnings, ...output.warnings],
    deprecation_warning: output.deprecation_warning,
    execution_meta: {
      latency_seconds: latencyMs / 1000,
      agents_invoked: output.execution_meta.agents_invoked,
      model_used: output.execution_meta.model_used,
      budget_exceeded: output.execution_meta.budget_exceeded,
    },
  };
  // A later step must read the same in this attempt as in one that finds the row.
  return claim.steps.length === 1 ? stored : v.parse(v.pipe(v.string(), v.parseJson(), StoredResult), storableJson(stored));
}

/** What was really stored for this step, whatever the plugin says. */
async function storedArtifacts(db: TenantDb, claim: Claim, step: ClaimedStep): Promise<ArtifactRef[]> {
  const rows = await db.tenant(claim.tenantId, (tx) =>
    tx
      .selectFrom("artifacts")
      .select(["id", "name", "media_type", "size_bytes", "sha256"])
      .where("tenant_id", "=", claim.tenantId)
      .where("task_id", "=", claim.taskId)
      .where("step", "=", step.id)
      .orderBy("name")
      .execute(),
  );
  return v.parse(
    v.array(ArtifactRef),
    rows.map((row) => ({ artifact_id: publicId("artifact", row.id), name: row.name, media_type: row.media_type, size_bytes: Number(row.size_bytes), sha256: row.sha256 })),
  );
}
