/** What a task does: steps, each a plugin at a version, with the steps it waits for. Stored with the task when it is admitted. */
import * as v from "valibot";
import { PluginName, Semver } from "../sdk/src/manifest.ts";

export const PlanStep = v.object({ id: v.string(), plugin: PluginName, version: Semver, needs: v.array(v.string()) });
export const TaskPlan = v.pipe(v.array(PlanStep), v.minLength(1));
export type TaskPlan = v.InferOutput<typeof TaskPlan>;

/** The plan of a command that one plugin answers. */
export function singleStepPlan(plugin: string, version: string): TaskPlan {
  return [{ id: "main", plugin, version, needs: [] }];
}
