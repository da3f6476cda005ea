import type { NodeContext, TicketPriority } from "@aau/sdk";
import { type Rule, type Settings, settingsOf } from "../settings.ts";
import type { TicketPatch, TicketState } from "../state.ts";

export interface Assignable {
  title: string;
  description?: string;
  component: string | null;
  labels: readonly string[];
  priority: TicketPriority;
}

const list = (value: string | readonly string[] | undefined): readonly string[] | undefined => (typeof value === "string" ? [value] : value);
const lower = (text: string) => text.toLowerCase();

/** A keyword is found as a word or words, not inside of one. */
function holdsWord(text: string, keyword: string): boolean {
  const escaped = keyword.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "iu").test(text);
}

function matches({ match }: Rule, issue: Assignable): boolean {
  const { component, label, keyword, severity } = { component: list(match.component), label: list(match.label), keyword: list(match.keyword), severity: list(match.severity) };
  const labels = issue.labels.map(lower);
  return (
    (component?.some((one) => lower(one) === issue.component?.toLowerCase()) ?? true) &&
    (label?.some((one) => labels.includes(lower(one))) ?? true) &&
    (keyword?.some((one) => holdsWord(`${issue.title}\n${issue.description ?? ""}`, one)) ?? true) &&
    (severity?.includes(issue.priority) ?? true)
  );
}

/** The first rule that matches says who; without one, the defaults. */
export function assigneeOf(issue: Assignable, { rules, default_assignee, default_team }: Settings): { assignee: string | null; team: string | null } {
  const rule = rules.find((one) => matches(one, issue));
  return rule ? { assignee: rule.assignee ?? null, team: rule.team ?? null } : { assignee: default_assignee ?? null, team: default_team ?? null };
}

/** Gives each draft to whom the tenant's rules name, unless the command or the source names somebody. */
export function assign({ drafts }: TicketState, ctx: NodeContext): TicketPatch {
  const settings = settingsOf(ctx.config);
  return { drafts: drafts.map((draft) => (draft.assignee === null ? { ...draft, ...assigneeOf(draft, settings) } : draft)) };
}
