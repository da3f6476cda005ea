/** Whether one plugin may have another do a part of its work: what the manifest says, the tenant has, and the task still holds. */
import { createHash, randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import type { PlatformDb, TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { asId } from "../ids.ts";
import { currentCatalogue } from "../registry/catalogue.ts";
import { pluginVersion } from "../registry/plugin-versions.ts";
import { pickVersion } from "../registry/version-range.ts";
import type { ChainRequest } from "../sdk/src/chaining.ts";
import { TaskContext } from "./assemble-context.ts";
import { SILENCE_MS } from "./chained-hold.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { RecordedStep, type StepRecord } from "./step-record.ts";
import { canonicalJson } from "./storable-json.ts";

/** A plugin that a step calls, one that this one calls, and one more. */
const MAX_DEPTH = 3;
const MAX_CHAINED_STEPS = 20;
/** The parent must have time to do something with the answer. */
const LEFT_FOR_PARENT_MS = 2_000;

const Record_ = v.record(v.string(), v.unknown());
const Begun = v.object({
  outcome: v.picklist(["begun", "ended", "in_flight", "lease_lost", "cancelled", "too_many", "not_included", "not_subscribed", "quota_exceeded"]),
  name: v.nullable(v.string()),
  version: v.nullable(v.string()),
  step: v.nullable(v.object({ status: v.string(), output: v.unknown(), error: v.unknown() })),
  tokens_used: v.pipe(v.string(), v.transform(Number)),
  task: v.nullable(
    v.object({
      user_id: v.nullable(v.string()),
      context: v.nullable(TaskContext),
      priority: v.picklist(["low", "normal", "high"]),
      deadline_ms: v.number(),
      request_id: v.string(),
      created_at: v.string(),
      routing_method: v.string(),
      config: v.nullable(Record_),
      profile: v.nullable(Record_),
    }),
  ),
});

export type Begun =
  /** An earlier call has the answer. */
  { kind: "ended"; record: StepRecord } | { kind: "begun"; holder: string; step: ClaimedStep; claim: Claim; context: TaskContext };

/** `traceparent` is the asking call's own. Throws a refusal that the plugin's author, or the tenant, can do something about. */
export async function beginChainedStep(
  { db, redis }: { db: TenantDb; redis: Redis },
  capability: Capability,
  plugin: string,
  asked: v.InferOutput<typeof ChainRequest>,
  traceparent: string,
): Promise<Begun> {
  if (capability.step.split(".").length > MAX_DEPTH) throw new Refusal("CHAIN_LIMIT", { message: `Plugins call each other at most ${MAX_DEPTH} deep.` });

  const catalogue = await currentCatalogue(db, redis, null, asId("tenant", capability.tenant));
  const parent = await pluginVersion(db, catalogue.generation, capability.plugin, capability.version);
  const dependency = parent.manifest.dependencies.find(({ name }) => name === plugin);
  if (!dependency) throw new Refusal("FORBIDDEN_SCOPE", { message: `The manifest of ${capability.plugin} does not name ${plugin} among its dependencies.` });
  const wanted = pickVersion([...(catalogue.plugins.get(plugin)?.versions.keys() ?? [])], [dependency.version]);
  if (wanted === null) throw new Refusal("VERSION_UNSATISFIED", { message: `No live version of ${plugin} fits ${dependency.version}.` });

  const key = createHash("sha256")
    .update(canonicalJson([plugin, asked.command, asked.attachments, asked.occurrence]))
    .digest("hex");
  const holder = randomUUID();
  const [raw] = await db.call("SELECT * FROM begin_chained_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", [
    capability.tenant,
    capability.task,
    capability.lease,
    capability.step,
    key,
    plugin,
    wanted,
    holder,
    SILENCE_MS,
    MAX_CHAINED_STEPS,
    capability.plugin,
  ]);
  const begun = v.parse(Begun, raw);
  const id = begun.name ?? capability.step;
  // The version that an earlier attempt began with, so that its models' answers are found again.
  const version = begun.version ?? wanted;
  if (begun.outcome === "ended") {
    const row = { step: id, plugin_name: plugin, plugin_version: version, latency_ms: null, ...begun.step };
    return { kind: "ended", record: v.parse(RecordedStep, row) };
  }
  if (begun.outcome !== "begun" || begun.task === null) throw refusalOf(begun.outcome, plugin);

  const { task } = begun;
  // What the parent says of its time can only make it shorter: its own end, which the hold watches for, ends this step in any case.
  const leftMs = Math.min(asked.time_left_ms ?? Number.POSITIVE_INFINITY, parent.manifest.timeout_seconds * 1000, task.deadline_ms) - LEFT_FOR_PARENT_MS;
  const { manifest, endpoint, ending } = await pluginVersion(db, catalogue.generation, plugin, version);
  const left = Math.max(1, capability.token_budget - begun.tokens_used);
  const step: ClaimedStep = {
    id,
    plugin,
    version,
    needs: [],
    chained_by: capability.step,
    manifest: { ...manifest, token_budget: Math.min(manifest.token_budget, left) },
    endpoint,
    ending,
    config: task.config ?? {},
  };
  const claim: Claim = {
    taskId: asId("task", capability.task),
    tenantId: asId("tenant", capability.tenant),
    isOffline: capability.offline === true,
    userId: task.user_id,
    leaseToken: capability.lease,
    attempt: capability.attempt,
    handBacks: 0,
    deadlineAtMs: Math.floor(performance.now()) + Math.max(leftMs, 0),
    steps: [step],
    finished: [],
    due: null,
    profile: task.profile,
    command: asked.command,
    attachments: [],
    conversationId: null,
    context: task.context,
    commandVector: null,
    priority: task.priority,
    routingMethod: task.routing_method,
    requestId: task.request_id,
    traceparent,
    createdAt: new Date(task.created_at).toISOString(),
  };
  return { kind: "begun", holder, step, claim, context: task.context ?? { history: [], knowledge: [], warnings: [] } };
}

/** What tasks asked that are over. */
export async function forgetChainedSteps(db: PlatformDb): Promise<void> {
  await db.call("SELECT forget_chained_steps()", []);
}

function refusalOf(outcome: v.InferOutput<typeof Begun>["outcome"], plugin: string): Refusal {
  switch (outcome) {
    case "in_flight":
      return new Refusal("CONFLICT", { message: "The same call is open; ask again for its answer.", retryAfterSec: 1 });
    case "too_many":
      return new Refusal("CHAIN_LIMIT", { message: `A task has at most ${MAX_CHAINED_STEPS} calls from plugin to plugin.` });
    case "not_included":
      return new Refusal("CHAINING_NOT_INCLUDED");
    case "not_subscribed":
      return new Refusal("PLUGIN_NOT_SUBSCRIBED", { message: `The tenant is not subscribed to ${plugin}, which this plugin needs.` });
    case "quota_exceeded":
      return new Refusal("QUOTA_EXCEEDED", { message: `The tenant's quota for ${plugin} is used up.` });
    case "cancelled":
      return new Refusal("CONFLICT", { message: "The task was cancelled." });
    default:
      return new Refusal("CONFLICT", { message: "This execution is over; its capability ended with it." });
  }
}
