/**
 * From requested steps to a plan that can be run: versions are locked, what plugins depend on becomes steps of its own before them, and
 * the steps stand in an order in which they can run. Pure: two calls with the same catalogue give the same plan.
 */
import { Refusal } from "../errors.ts";
import { fitsRange, pickVersion } from "../registry/version-range.ts";
import type { Manifest } from "../sdk/src/manifest.ts";
import type { PlanStep, TaskPlan } from "../tasks/task-plan.ts";
import { circular } from "./check-plan.ts";
import type { RequestedStep } from "./submitted-plan.ts";

/** Dependencies included. */
export const MAX_STEPS = 20;

/** What can run now. */
export interface Releases {
  /** Empty for a plugin that does not exist, or that this tenant may not see. */
  versionsOf(plugin: string): readonly string[];
  manifestOf(plugin: string, version: string): Depending | undefined;
}
type Depending = Pick<Manifest, "dependencies"> & Partial<Pick<Manifest, "required_scopes">>;

/** Throws NOT_FOUND, VERSION_UNSATISFIED, CIRCULAR_DEPENDENCY with the path, or INVALID_INPUT for too many steps. */
export function resolvePlan(releases: Releases, requested: readonly RequestedStep[]): TaskPlan {
  // A version that was picked for one step may not fit what another turns out to depend on: then all begins again with that range known.
  const ranges = new Map<string, readonly string[]>();
  for (;;) {
    const outcome = attempt(releases, requested, ranges);
    if ("steps" in outcome) return inOrder(outcome.steps);
    ranges.set(outcome.plugin, [...(ranges.get(outcome.plugin) ?? []), outcome.range]);
  }
}

type Attempt = { steps: PlanStep[] } | { plugin: string; range: string };

function attempt(releases: Releases, requested: readonly RequestedStep[], ranges: ReadonlyMap<string, readonly string[]>): Attempt {
  const steps = requested.map(({ version, ...step }): PlanStep => {
    const versions = releases.versionsOf(step.plugin);
    if (versions.length === 0) throw new Refusal("NOT_FOUND", { message: `There is no plugin named ${step.plugin}.` });
    const own = version === undefined ? [] : [version];
    const picked = pickVersion(versions, [...own, ...(ranges.get(step.plugin) ?? [])]) ?? pickVersion(versions, own) ?? unsatisfied(step.plugin, own, versions);
    return { ...step, needs: [...step.needs], version: picked };
  });

  /** Gives the step what its plugin depends on; `chain` holds the plugins above it. Returns a range that makes all begin again. */
  const satisfy = (step: PlanStep, chain: readonly string[]): Attempt | null => {
    for (const { name, version: range } of dependenciesOf(releases.manifestOf(step.plugin, step.version))) {
      if (chain.includes(name)) throw circular([...chain.slice(chain.indexOf(name)), name]);
      const present = steps.filter((other) => other.plugin === name && !reaches(steps, other, step.id));
      const serving = present.filter(({ version }) => fitsRange(version, range));
      let dependency = serving.find(({ id }) => step.needs.includes(id)) ?? serving[0];
      if (!dependency) {
        const known = ranges.get(name) ?? [];
        if (present.length > 0 && !known.includes(range)) return { plugin: name, range };
        const versions = releases.versionsOf(name);
        const all = [range, ...known.filter((other) => other !== range)];
        dependency = { id: freeId(steps, name), plugin: name, version: pickVersion(versions, all) ?? unsatisfied(name, all, versions), needs: [], command: step.command };
        steps.push(dependency);
        if (steps.length > MAX_STEPS) throw new Refusal("INVALID_INPUT", { message: `With all that its plugins depend on, the plan has more than ${MAX_STEPS} steps.` });
        const conflict = satisfy(dependency, [...chain, name]);
        if (conflict) return conflict;
      }
      if (!step.needs.includes(dependency.id)) step.needs.push(dependency.id);
    }
    return null;
  };
  for (const step of steps.slice()) {
    const conflict = satisfy(step, [step.plugin]);
    if (conflict) return conflict;
  }
  return { steps };
}

/** What has to be done before a plugin begins. One with `plugin:chain` calls its dependencies itself, when and if it needs them. */
function dependenciesOf(manifest: Depending | undefined): Manifest["dependencies"] {
  return !manifest || manifest.required_scopes?.includes("plugin:chain") ? [] : manifest.dependencies;
}

function unsatisfied(plugin: string, ranges: readonly string[], available: readonly string[]): never {
  const wanted = ranges.join(" and ");
  throw new Refusal("VERSION_UNSATISFIED", {
    message: available.length === 0 ? `There is no plugin named ${plugin}, and ${wanted} of it is needed.` : `No version of ${plugin} fits ${wanted}.`,
    details: { plugin, range: wanted, available: available.slice(0, 20) },
  });
}

/** True when `from` is `id`, or waits for it. */
function reaches(steps: readonly PlanStep[], from: PlanStep, id: string): boolean {
  const seen = new Set([from.id]);
  // A set goes on with what is added to it on the way.
  for (const each of seen) for (const need of steps.find((step) => step.id === each)?.needs ?? []) seen.add(need);
  return seen.has(id);
}

function freeId(steps: readonly PlanStep[], plugin: string): string {
  const isTaken = (id: string) => steps.some((step) => step.id === id);
  let id = plugin;
  for (let n = 2; isTaken(id); n++) id = `${plugin.slice(0, 36)}-${n}`;
  return id;
}

/** Each step behind all that it needs; otherwise as they came. */
function inOrder(steps: readonly PlanStep[]): TaskPlan {
  const placed = new Set<string>();
  const ordered: PlanStep[] = [];
  while (ordered.length < steps.length) {
    const next = steps.find(({ id, needs }) => !placed.has(id) && needs.every((need) => placed.has(need)));
    if (!next) throw new Error("a plan with a circle was not refused");
    placed.add(next.id);
    ordered.push(next);
  }
  return ordered;
}
