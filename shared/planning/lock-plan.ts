/** Requested steps become the plan that runs: versions and dependencies are locked, and the tier is asked. */
import type { PlanTier } from "../access/caller.ts";
import { Refusal } from "../errors.ts";
import { planOf } from "../metering/plan-prices.ts";
import { findVisible, type Scorer } from "../routing/score-texts.ts";
import type { TaskPlan } from "../tasks/task-plan.ts";
import type { DraftStep } from "./assign-parts.ts";
import { type Releases, resolvePlan } from "./resolve-dependencies.ts";
import type { RequestedStep } from "./submitted-plan.ts";

export type PluginView = Pick<Scorer, "catalogue" | "visible">;

/** Throws what resolvePlan throws, and CHAINING_NOT_INCLUDED. */
export function lockPlan(view: PluginView, steps: readonly RequestedStep[], { tier, upgradeUrl }: { tier: PlanTier; upgradeUrl: string }): TaskPlan {
  const plan = resolvePlan(releasesOf(view), steps);
  if (plan.length > 1 && !planOf(tier).mayChain) {
    throw new Refusal("CHAINING_NOT_INCLUDED", {
      message: `This takes ${plan.length} steps (${plan.map((step) => step.plugin).join(", ")}), and your plan includes one plugin at a time.`,
      details: { plugins: [...new Set(plan.map((step) => step.plugin))], upgrade_url: upgradeUrl },
    });
  }
  return plan;
}

export function releasesOf(view: PluginView): Releases {
  return {
    versionsOf: (plugin) => [...(findVisible(view, plugin)?.versions.keys() ?? [])],
    manifestOf: (plugin, version) => findVisible(view, plugin)?.versions.get(version),
  };
}

/** What is asked of one plugin; what it builds on is added when the plan is locked. */
export const oneStep = (plugin: string): RequestedStep => ({ id: "main", plugin, needs: [] });

/** A step goes by its plugin's name, the second of one plugin by a number behind it. */
export function identified(drafts: readonly DraftStep[]): RequestedStep[] {
  const ids = drafts.map(({ plugin }, i) => {
    const before = drafts.slice(0, i).filter((draft) => draft.plugin === plugin).length;
    return before === 0 ? plugin : `${plugin.slice(0, 37)}-${before + 1}`;
  });
  return drafts.map(({ plugin, command, needs }, i) => ({ id: ids[i] ?? plugin, plugin, command, needs: needs.map((need) => ids[need] ?? "") }));
}
