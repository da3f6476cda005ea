/** What a submit would do, and what of the quota and the money it would take. Nothing is written, and nobody is charged. */
import * as v from "valibot";
import type { Caller } from "../access/caller.ts";
import type { TenantDb } from "../db/database.ts";
import type { Upstream } from "../models/upstream.ts";
import { formatUsd } from "../money.ts";
import type { Catalogue } from "../registry/catalogue.ts";
import type { Candidate, DecisionLines } from "../routing/decide.ts";
import { notSubscribed, quotaExceeded } from "../tasks/admit-task.ts";
import type { Submission } from "../tasks/submission.ts";
import { InputRequest, ROUTING_METHODS } from "../tasks/task-view.ts";
import { estimateCost } from "./estimate-cost.ts";
import type { Planned, SubmissionPlan } from "./plan-submission.ts";

const Routing = v.strictObject({
  method: v.picklist(ROUTING_METHODS),
  confidence: v.nullable(v.number()),
  candidates: v.array(v.strictObject({ plugin: v.string(), score: v.number(), probability: v.number() })),
  thresholds: v.strictObject({ chain_threshold: v.number(), confidence_min: v.number() }),
});

/** The 200 of `POST /v1/tasks?dry_run=true`. */
export const DryRun = v.variant("status", [
  v.strictObject({
    status: v.literal("planned"),
    plan: v.array(v.strictObject({ id: v.string(), plugin: v.string(), version: v.string(), needs: v.array(v.string()) })),
    routing: Routing,
    /** By plugin. `overage`: at least one of the plan's executions would be over the limit, and billed as such. `sandbox`: you have not subscribed; these are the free tries. */
    quota: v.record(
      v.string(),
      v.strictObject({ used: v.number(), reserved: v.number(), limit: v.nullable(v.number()), remaining: v.nullable(v.number()), overage: v.boolean(), sandbox: v.boolean() }),
    ),
    estimated_cost_usd: v.strictObject({ low: v.string(), high: v.string() }),
  }),
  v.strictObject({ status: v.literal("pending"), routing: Routing, input_request: v.pick(InputRequest, ["question", "candidates"]) }),
]);
export type DryRun = v.InferOutput<typeof DryRun>;

export interface DryRunner {
  db: TenantDb;
  upstream: Pick<Upstream, "charges" | "resolveModel">;
  catalogue: Catalogue;
  upgradeUrl: string;
}

/** Throws what an admission would be refused with. */
export async function dryRun(runner: DryRunner, caller: Caller, submission: Submission, decided: SubmissionPlan): Promise<DryRun> {
  if (decided.kind === "planned") return showPlan(runner, caller, submission, decided);
  const quota = await previewPlan(
    runner.db,
    caller,
    decided.offers.flatMap(({ plugins }) => plugins).map((plugin) => ({ plugin })),
  );
  const subscribed = new Set(quota.filter((one) => one.subscribed).map(({ plugin }) => plugin));
  return {
    status: "pending",
    routing: shownRouting(decided.method, null, decided.candidates, decided.lines),
    input_request: { question: decided.question, candidates: decided.offers.map((offer) => ({ ...offer, subscribed: offer.plugins.every((plugin) => subscribed.has(plugin)) })) },
  };
}

async function showPlan({ db, upstream, catalogue, upgradeUrl }: DryRunner, caller: Caller, submission: Submission, { plan, entry, ...chosen }: Planned): Promise<DryRun> {
  const steps = plan.map(({ plugin, version, when }) => ({ plugin, when, manifest: catalogue.plugins.get(plugin)?.versions.get(version) ?? entry.manifest }));
  const [quota, cost] = await Promise.all([previewPlan(db, caller, plan), estimateCost({ db, upstream }, caller.tenantId, steps, submission.max_cost_usd)]);
  const foreign = quota.find((one) => !one.subscribed && (!one.sandbox || isOver(one)));
  if (foreign) throw notSubscribed(foreign.plugin, upgradeUrl);
  const full = quota.find((one) => !one.overage_enabled && isOver(one));
  if (full) throw quotaExceeded(full.plugin, full.quota_limit ?? 0, upgradeUrl);
  return {
    status: "planned",
    plan: plan.map(({ id, plugin, version, needs }) => ({ id, plugin, version, needs })),
    routing: shownRouting(chosen.method, chosen.confidence, chosen.candidates, chosen.lines),
    quota: Object.fromEntries(
      quota.map((one) => {
        const { plugin, used, reserved, quota_limit: limit, sandbox } = one;
        return [plugin, { used, reserved, limit, remaining: limit === null ? null : Math.max(0, limit - used - reserved), overage: isOver(one), sandbox }];
      }),
    ),
    estimated_cost_usd: { low: formatUsd(cost.low), high: formatUsd(cost.high) },
  };
}

const Preview = v.array(
  v.object({
    plugin: v.string(),
    steps: v.number(),
    subscribed: v.boolean(),
    sandbox: v.boolean(),
    quota_limit: v.nullable(v.number()),
    overage_enabled: v.boolean(),
    used: v.number(),
    reserved: v.number(),
  }),
);
type Preview = v.InferOutput<typeof Preview>[number];

async function previewPlan(db: TenantDb, caller: Caller, plan: readonly { plugin: string }[]): Promise<Preview[]> {
  const plugins = JSON.stringify(plan.map(({ plugin }) => ({ plugin })));
  return v.parse(Preview, await db.call("SELECT * FROM preview_plan($1, $2, $3)", [caller.tenantId, caller.environment, plugins]));
}

const isOver = ({ steps, used, reserved, quota_limit: limit }: Preview): boolean => limit !== null && used + reserved + steps > limit;

function shownRouting(method: (typeof ROUTING_METHODS)[number], confidence: number | null, candidates: readonly Candidate[], lines: DecisionLines): v.InferOutput<typeof Routing> {
  return {
    method,
    confidence: confidence === null ? null : rounded(confidence),
    candidates: candidates.map(({ plugin, score, probability }) => ({ plugin, score: rounded(score), probability: rounded(probability) })),
    thresholds: { chain_threshold: lines.chainThreshold, confidence_min: lines.confidenceMin },
  };
}

const rounded = (share: number): number => Math.round(share * 1000) / 1000;
