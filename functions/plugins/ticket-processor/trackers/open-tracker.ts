import type { NodeContext } from "@aau/sdk";
import { settingsOf } from "../settings.ts";
import { builtInTracker } from "./built-in.ts";
import { githubTracker } from "./github.ts";
import { jiraTracker } from "./jira.ts";
import type { Tracker } from "./tracker.ts";

/** The tenant's tracker, for one node of one execution. */
export function openTracker(ctx: NodeContext): Tracker {
  const settings = settingsOf(ctx.config);
  if (settings.tracker === "github") return githubTracker(settings, ctx.secret("github_token"), ctx);
  if (settings.tracker === "jira") return jiraTracker(settings, ctx.secret("jira_token"), ctx);
  return builtInTracker(ctx.tickets);
}
