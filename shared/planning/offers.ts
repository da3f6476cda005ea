/** What a question offers: plugins, each with what it builds on, and the parts of the command each to a plugin of its own. */
import type { PlanTier } from "../access/caller.ts";
import { Refusal } from "../errors.ts";
import { planOf } from "../metering/plan-prices.ts";
import type { Candidate } from "../routing/decide.ts";
import type { Route } from "../routing/route-command.ts";
import { findVisible } from "../routing/score-texts.ts";
import { singleStepPlan, type TaskPlan } from "../tasks/task-plan.ts";
import { toSteps } from "./assign-parts.ts";
import { identified, lockPlan, oneStep, type PluginView } from "./lock-plan.ts";
import { splitIntents } from "./split-intents.ts";
import type { RequestedStep } from "./submitted-plan.ts";

export type Question = Extract<Route, { kind: "question" }>;

/** A candidate as it is stored and shown; whether the tenant is subscribed to it is added where that is known. */
export interface Offer {
  /** Null: a plan with a plugin for each of `parts`. */
  plugin: string | null;
  /** Of all steps. */
  plugins: string[];
  /** The plugin of each part of the command, in their order; no word of the command itself. */
  parts?: string[];
  description: string;
  confidence: number;
}

/** The plan of the parts first, where there is one and the tier includes it. */
export function offersOf(view: PluginView, { candidates, parts }: Question, tier: PlanTier): Offer[] {
  const singles = candidates.map(({ plugin, probability }): Offer => {
    const description = findVisible(view, plugin)?.manifest.description ?? "";
    return { plugin, plugins: pluginsOf(view, [oneStep(plugin)]) ?? [plugin], description, confidence: shown(probability) };
  });
  if (!parts || !planOf(tier).mayChain) return singles;
  const names = [...new Set(parts)];
  const plugins = pluginsOf(
    view,
    parts.map((plugin, i) => ({ id: `part-${i}`, plugin, needs: [] })),
  );
  if (!plugins) return singles;
  const description = `Each part of the command by a plugin of its own: ${names.join(", ")}.`;
  return [{ plugin: null, plugins, parts: [...parts], description, confidence: shown(leastOf(candidates, names)) }, ...singles];
}

/** Null for what cannot be resolved now: whoever chooses it is told why. */
function pluginsOf(view: PluginView, steps: readonly RequestedStep[]): string[] | null {
  try {
    return [...new Set(lockPlan(view, steps, { tier: "enterprise", upgradeUrl: "" }).map(({ plugin }) => plugin))];
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

const leastOf = (candidates: readonly Candidate[], names: readonly string[]): number =>
  Math.min(...names.map((name) => candidates.find(({ plugin }) => plugin === name)?.probability ?? 0));

const shown = (probability: number): number => Math.round(probability * 1000) / 1000;

/** The plan of the offer that was chosen, from what is registered now. Throws what lockPlan throws, and CONFLICT when the command is cut otherwise by now. */
export function planOfOffer(
  view: PluginView,
  { plugin, parts }: Pick<Offer, "plugin" | "parts">,
  command: string,
  limits: { tier: PlanTier; upgradeUrl: string },
): { plugin: string; plan: TaskPlan } {
  if (plugin !== null) {
    const entry = findVisible(view, plugin);
    return { plugin, plan: entry?.manifest.dependencies.length === 0 ? singleStepPlan(entry.name, entry.version) : lockPlan(view, [oneStep(plugin)], limits) };
  }
  const split = splitIntents(command);
  if (!parts?.[0] || parts.length !== split.intents.length)
    throw new Refusal("CONFLICT", { message: "This plan was offered by another version of the platform: cancel the task and submit the command again." });
  return { plugin: parts[0], plan: lockPlan(view, identified(toSteps(split, parts)), limits) };
}
