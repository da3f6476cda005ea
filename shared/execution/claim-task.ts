/** Takes a task for this executor, with everything that its run needs, in one round trip. */
import * as v from "valibot";
import { Environment } from "../access/caller.ts";
import { testModelsOf } from "../access/test-models.ts";
import type { PlatformDb } from "../db/database.ts";
import { asId, type TaskId, type TenantId } from "../ids.ts";
import { type PluginVersion, pluginVersion } from "../registry/plugin-versions.ts";
import { Attachment } from "../sdk/src/envelopes.ts";
import { type PlanStep, TaskPlan } from "../tasks/task-plan.ts";
import { StoredError } from "../tasks/task-view.ts";
import { TaskContext } from "./assemble-context.ts";
import { claimRow } from "./claim-batch.ts";
import { RecordedStep, type StepRecord } from "./step-record.ts";

/** A step of the plan with the plugin version that it was admitted with. */
export type ClaimedStep = PlanStep & PluginVersion & { config: Record<string, unknown> };

export interface Claim {
  taskId: TaskId;
  tenantId: TenantId;
  userId: string | null;
  /** The work of a test key: its model calls stay within the platform. */
  isOffline: boolean;
  leaseToken: string;
  attempt: number;
  handBacks: number;
  /** On this process's monotonic clock, from what is left on the database's: the wall clocks of two machines may differ by minutes. */
  deadlineAtMs: number;
  steps: [ClaimedStep, ...ClaimedStep[]];
  /** Steps that an earlier attempt finished; they are not run again. */
  finished: StepRecord[];
  /** Why the task must end now, with what is finished. */
  due: StoredError | null;
  profile: Record<string, unknown> | null;
  command: string;
  attachments: Attachment[];
  conversationId: string | null;
  /** What an earlier attempt told the plugins. */
  context: TaskContext | null;
  /** The command as routing embedded it. */
  commandVector: { values: Float32Array; model: string } | null;
  priority: "low" | "normal" | "high";
  routingMethod: string;
  requestId: string;
  traceparent: string | null;
  createdAt: string;
}

const Record_ = v.record(v.string(), v.unknown());
const ClaimedTask = v.object({
  id: v.string(),
  tenant_id: v.string(),
  user_id: v.nullable(v.string()),
  environment: Environment,
  plan: TaskPlan,
  input: v.object({ command: v.string(), attachments: v.array(Attachment) }),
  conversation_id: v.nullable(v.string()),
  context: v.nullable(TaskContext),
  command_embedding: v.nullable(v.string()),
  command_embedding_model: v.nullable(v.string()),
  due: v.nullable(StoredError),
  routing_method: v.string(),
  priority: v.picklist(["low", "normal", "high"]),
  attempt: v.number(),
  hand_backs: v.number(),
  deadline_ms: v.number(),
  created_at: v.string(),
  traceparent: v.nullable(v.string()),
  request_id: v.string(),
});
const Row = v.variant("outcome", [
  v.object({ outcome: v.literal("gone") }),
  v.object({ outcome: v.literal("ended") }),
  v.object({
    outcome: v.literal("claimed"),
    task: ClaimedTask,
    lease_token: v.string(),
    steps: v.array(RecordedStep),
    /** The tenant's configuration by plugin. */
    configs: v.record(v.string(), Record_),
    profile: v.nullable(Record_),
    registry_generation: v.string(),
  }),
]);

/** `gone`: over, unknown, or in other hands. `ended`: it was due to end and has ended here. */
export async function claimTask(
  db: PlatformDb,
  id: TaskId,
  leaseMs: number,
  maxCrashes: number,
): Promise<{ outcome: "gone" } | { outcome: "ended" } | { outcome: "claimed"; claim: Claim }> {
  const row = v.parse(Row, await claimRow(db, { id, leaseMs, maxCrashes }));
  if (row.outcome === "gone" || row.outcome === "ended") return { outcome: row.outcome };
  const { task } = row;
  const tenantId = asId("tenant", task.tenant_id);
  const isOffline = task.environment === "test" && (await testModelsOf(db, tenantId)) === "offline";
  const own = task.plan.filter(({ chained_by }) => chained_by === undefined);
  const [first, ...others] = await Promise.all(
    own.map(async (step): Promise<ClaimedStep> => {
      const version = await pluginVersion(db, row.registry_generation, step.plugin, step.version);
      return { ...step, ...version, config: row.configs[step.plugin] ?? {} };
    }),
  );
  if (!first) throw new Error("a task's plan has no steps");
  return {
    outcome: "claimed",
    claim: {
      taskId: id,
      tenantId,
      userId: task.user_id,
      isOffline,
      leaseToken: row.lease_token,
      attempt: task.attempt,
      handBacks: task.hand_backs,
      deadlineAtMs: Math.floor(performance.now()) + task.deadline_ms,
      steps: [first, ...others],
      finished: row.steps.filter(({ id }) => own.some((step) => step.id === id)),
      due: task.due,
      profile: row.profile,
      command: task.input.command,
      attachments: task.input.attachments,
      conversationId: task.conversation_id,
      context: task.context,
      commandVector: vectorOf(task.command_embedding, task.command_embedding_model),
      priority: task.priority,
      routingMethod: task.routing_method,
      requestId: task.request_id,
      traceparent: task.traceparent,
      createdAt: new Date(task.created_at).toISOString(),
    },
  };
}

/** float4 in little-endian, as base64. */
function vectorOf(base64: string | null, model: string | null): Claim["commandVector"] {
  if (base64 === null || model === null) return null;
  const bytes = Buffer.from(base64, "base64");
  return { values: Float32Array.from({ length: bytes.byteLength / 4 }, (_, at) => bytes.readFloatLE(at * 4)), model };
}
