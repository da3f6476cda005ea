/** What a task's result says of a plugin that is on its way out. */
import { endingWarning } from "../registry/plugin-versions.ts";
import type { TaskResult } from "../tasks/task-view.ts";
import type { ClaimedStep } from "./claim-task.ts";

/**
 * The result with the word that the plugin of this step ends, and what to do instead, unless it says so already: a plugin's own answer does, but it
 * may have given none, or another plugin has answered for it. `name`: the step's id where there are several.
 */
export function withEnding<R extends Pick<TaskResult, "warnings" | "deprecation_warning" | "migration_guide_url">>(result: R, step: ClaimedStep, name?: string): R {
  const message = endingWarning(step);
  if (message === null) return result;
  const said = result.deprecation_warning ?? "";
  const migration_guide_url = result.migration_guide_url ?? step.ending?.migrationGuideUrl ?? null;
  if (said.includes(message)) return { ...result, migration_guide_url };
  const warning = { code: "PLUGIN_DEPRECATED", message, ...(name === undefined ? {} : { step: name }) };
  return { ...result, warnings: [...(result.warnings ?? []), warning], deprecation_warning: [said, message].filter(Boolean).join(" "), migration_guide_url };
}
