/** What a task does: steps, each a plugin at a version, with the steps it waits for. Stored with the task when it is admitted. */
import * as v from "valibot";
import { PluginName, Semver } from "../sdk/src/manifest.ts";

/** What a step receives of an earlier one: the place in `{status, result, data, artifacts, confidence, next_steps}` that an RFC 6901 pointer names. */
const StepInput = v.object({
  from: v.string(),
  pointer: v.string(),
  as: v.picklist(["description", "attachment"]),
  name: v.optional(v.string()),
});
export type StepInput = v.InferOutput<typeof StepInput>;

export const PlanStep = v.object({
  id: v.string(),
  plugin: PluginName,
  version: Semver,
  needs: v.array(v.string()),
  /** The part of the command that this step answers; without it, the whole. */
  command: v.optional(v.string()),
  /** Without it, a step receives each of its `needs` whole, as an attachment. */
  inputs: v.optional(v.array(StepInput)),
  /** A CEL expression over `steps.<id>.{status, confidence, data}`; the step is left out where it is false. */
  when: v.optional(v.string()),
  /** The step whose plugin had this one done. Whoever runs that step runs this one; an executor does not. */
  chained_by: v.optional(v.string()),
});
export type PlanStep = v.InferOutput<typeof PlanStep>;
export const TaskPlan = v.pipe(v.array(PlanStep), v.minLength(1));
export type TaskPlan = v.InferOutput<typeof TaskPlan>;

/** The plan of a command that one plugin answers. */
export function singleStepPlan(plugin: string, version: string): TaskPlan {
  return [{ id: "main", plugin, version, needs: [] }];
}
