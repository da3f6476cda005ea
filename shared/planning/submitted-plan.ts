/** The `plan` that a caller may send with a command: its shape. What the steps say of each other is checked in check-plan.ts. */
import * as v from "valibot";
import { MAX_CONDITION_LENGTH } from "../execution/condition.ts";
import { isVersionRange } from "../registry/version-range.ts";
import { PluginName } from "../sdk/src/manifest.ts";

export const MAX_SUBMITTED_STEPS = 10;
const MAX_STEP_COMMAND_LENGTH = 10_000;

/** Begins with a letter, so that `__proto__` and the like name no step. */
const StepId = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9_-]{0,39}$/, "must be 1 to 40 of a-z, 0-9, _ and -, and begin with a letter"));

export const VersionRange = v.pipe(
  v.string(),
  v.maxLength(64, "must have at most 64 characters"),
  v.check(isVersionRange, "must be a version range such as ^1.2.0 or >=1.2.0 <2.0.0"),
);

/** The members of a step's outcome that a pointer may begin with. */
const POINTER = /^(?:\/(?:status|result|data|artifacts|confidence|next_steps)(?:\/(?:[^~/]|~[01])*)*)?$/;

const StepInput = v.strictObject({
  from: v.pipe(StepId, v.description("The step whose outcome is taken; one of `needs`.")),
  pointer: v.pipe(
    v.string(),
    v.maxLength(300, "must have at most 300 characters"),
    v.regex(POINTER, "must be a JSON pointer into {status, result, data, artifacts, confidence, next_steps}, such as /data/comments"),
  ),
  as: v.picklist(["description", "attachment"], "must be description or attachment"),
  name: v.optional(v.pipe(v.string(), v.regex(/^[^\p{Cc}/\\]{1,120}$/u, "must be a file name of at most 120 characters"))),
});

const Step = v.strictObject({
  id: StepId,
  plugin: PluginName,
  version: v.optional(v.pipe(VersionRange, v.description("A semver range; without it the newest release."))),
  needs: v.optional(v.pipe(v.array(StepId), v.maxLength(MAX_SUBMITTED_STEPS)), []),
  command: v.optional(
    v.pipe(
      v.string(),
      v.trim(),
      v.minLength(1, "must not be empty"),
      v.maxLength(MAX_STEP_COMMAND_LENGTH, `must have at most ${MAX_STEP_COMMAND_LENGTH} characters`),
      v.description("What this step is told; without it the whole command."),
    ),
  ),
  inputs: v.optional(v.pipe(v.array(StepInput), v.maxLength(20, "must have at most 20 entries"), v.description("Without it the step receives each of its `needs` whole."))),
  when: v.optional(
    v.pipe(
      v.string(),
      v.minLength(1, "must not be empty"),
      v.maxLength(MAX_CONDITION_LENGTH),
      v.description('CEL, such as `steps.review.status == "success"`; false leaves the step out.'),
    ),
  ),
});

export const SubmittedPlan = v.pipe(
  v.array(v.unknown()),
  // Before anybody looks at a thousand steps.
  v.minLength(1, "must have at least one step"),
  v.maxLength(MAX_SUBMITTED_STEPS, `must have at most ${MAX_SUBMITTED_STEPS} steps`),
  v.array(Step),
);
/** A step as somebody asked for it: a caller, or the planner on the caller's behalf. `version` is a range. */
export type RequestedStep = v.InferOutput<typeof Step>;
