/** From a submission to the plan that would be admitted: the caller's own plan, the plugin that it names, or what its command asks for. */
import type { Caller } from "../access/caller.ts";
import type { CatalogueEntry } from "../registry/catalogue.ts";
import { thresholdsFor } from "../routing/decide.ts";
import { refuseUnrouted } from "../routing/refuse-unrouted.ts";
import type { ChosenBy, RouteBasis, Router } from "../routing/route-command.ts";
import { findVisible } from "../routing/score-texts.ts";
import type { Submission } from "../tasks/submission.ts";
import { singleStepPlan, type TaskPlan } from "../tasks/task-plan.ts";
import { checkPlan } from "./check-plan.ts";
import { identified, lockPlan, oneStep } from "./lock-plan.ts";
import { type Offer, offersOf, type Question } from "./offers.ts";
import { planCommand } from "./plan-command.ts";
import type { RequestedStep } from "./submitted-plan.ts";

export interface Planned extends RouteBasis {
  readonly kind: "planned";
  readonly plan: TaskPlan;
  /** The plugin that the task goes by: the one that was chosen, or that of the first step that was asked for. */
  readonly entry: CatalogueEntry;
  readonly method: ChosenBy;
  readonly confidence: number;
}

export type SubmissionPlan = Planned | (Question & { readonly offers: readonly Offer[] });

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
  if (route.kind === "question") return { ...route, offers: offersOf(router, route, caller.tier) };
  if (route.kind === "steps") return planned(router, request, identified(route.steps), route);
  if (route.kind !== "plugin") throw refuseUnrouted(route);
  // Nearly every task is this: one plugin that depends on no other.
  const { entry } = route;
  if (entry.manifest.dependencies.length === 0) return { ...route, kind: "planned", plan: singleStepPlan(entry.name, entry.version) };
  return planned(router, request, [oneStep(entry.name)], route);
}

function planned(router: Router, { caller, upgradeUrl }: PlanRequest, steps: readonly RequestedStep[], chosen: RouteBasis & Pick<Planned, "method" | "confidence">): Planned {
  const plan = lockPlan(router, steps, { tier: caller.tier, upgradeUrl });
  const entry = findVisible(router, steps[0]?.plugin ?? "");
  if (!entry) throw new Error("a plan was resolved without its plugins");
  const { method, confidence, candidates, lines, embedding } = chosen;
  return { kind: "planned", plan, entry, method, confidence, candidates, lines, embedding };
}
