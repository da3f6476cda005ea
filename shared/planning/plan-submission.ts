/** From a submission to the plan that would be admitted: the caller's own plan, the plugin that it names, or what its command asks for. */
import type { Caller } from "../access/caller.ts";
import { Refusal } from "../errors.ts";
import { planOf } from "../metering/plan-prices.ts";
import type { CatalogueEntry } from "../registry/catalogue.ts";
import { thresholdsFor } from "../routing/decide.ts";
import { refuseUnrouted } from "../routing/refuse-unrouted.ts";
import type { ChosenBy, Route, RouteBasis, Router } from "../routing/route-command.ts";
import { findVisible } from "../routing/score-texts.ts";
import type { Submission } from "../tasks/submission.ts";
import { singleStepPlan, type TaskPlan } from "../tasks/task-plan.ts";
import type { DraftStep } from "./assign-parts.ts";
import { checkPlan } from "./check-plan.ts";
import { planCommand } from "./plan-command.ts";
import { type Releases, resolvePlan } from "./resolve-dependencies.ts";
import type { RequestedStep } from "./submitted-plan.ts";

export interface Planned extends RouteBasis {
  readonly kind: "planned";
  readonly plan: TaskPlan;
  /** The plugin that the task goes by: the one that was chosen, or that of the first step that was asked for. */
  readonly entry: CatalogueEntry;
  readonly method: ChosenBy;
  readonly confidence: number;
}

export type SubmissionPlan = Planned | Extract<Route, { kind: "question" }>;

export interface PlanRequest {
  submission: Submission;
  caller: Pick<Caller, "tenantId" | "tier">;
  /** What the admission call found under the command's digest. */
  cachedRoute: string | null;
  upgradeUrl: string;
  isDryRun: boolean;
}

/** Throws the refusal that the caller gets when there is nothing to run. Nothing is written but the route cache, and that not in a dry run. */
export async function planSubmission(router: Router, request: PlanRequest): Promise<SubmissionPlan> {
  const { submission, caller, cachedRoute, isDryRun } = request;
  const { command, plugin, plan: requested } = submission;
  if (requested) {
    checkPlan(requested);
    const lines = thresholdsFor(router.embedder.model, router.thresholds);
    return planned(router, request, requested, { method: "explicit", confidence: 1, candidates: [], lines, embedding: null });
  }
  const route = await planCommand(router, { tenantId: caller.tenantId, command, plugin, cachedRoute, isDryRun });
  if (route.kind === "question") return route;
  if (route.kind === "steps") return planned(router, request, identified(route.steps), route);
  if (route.kind !== "plugin") throw refuseUnrouted(route);
  // Nearly every task is this: one plugin that depends on no other.
  const { entry } = route;
  if (entry.manifest.dependencies.length === 0) return { ...route, kind: "planned", plan: singleStepPlan(entry.name, entry.version) };
  return planned(router, request, [{ id: "main", plugin: entry.name, needs: [] }], route);
}

function planned(router: Router, { caller, upgradeUrl }: PlanRequest, steps: readonly RequestedStep[], chosen: RouteBasis & Pick<Planned, "method" | "confidence">): Planned {
  const plan = resolvePlan(releasesOf(router), steps);
  const entry = findVisible(router, steps[0]?.plugin ?? "");
  if (!entry) throw new Error("a plan was resolved without its plugins");
  if (plan.length > 1 && !planOf(caller.tier).mayChain) {
    throw new Refusal("CHAINING_NOT_INCLUDED", {
      message: `This takes ${plan.length} steps (${plan.map((step) => step.plugin).join(", ")}), and your plan includes one plugin at a time.`,
      details: { plugins: [...new Set(plan.map((step) => step.plugin))], upgrade_url: upgradeUrl },
    });
  }
  const { method, confidence, candidates, lines, embedding } = chosen;
  return { kind: "planned", plan, entry, method, confidence, candidates, lines, embedding };
}

function releasesOf(router: Router): Releases {
  return {
    versionsOf: (plugin) => [...(findVisible(router, plugin)?.versions.keys() ?? [])],
    manifestOf: (plugin, version) => findVisible(router, plugin)?.versions.get(version),
  };
}

/** A step goes by its plugin's name, the second of one plugin by a number behind it. */
function identified(drafts: readonly DraftStep[]): RequestedStep[] {
  const ids = drafts.map(({ plugin }, i) => {
    const before = drafts.slice(0, i).filter((draft) => draft.plugin === plugin).length;
    return before === 0 ? plugin : `${plugin.slice(0, 37)}-${before + 1}`;
  });
  return drafts.map(({ plugin, command, needs }, i) => ({ id: ids[i] ?? plugin, plugin, command, needs: needs.map((need) => ids[need] ?? "") }));
}
