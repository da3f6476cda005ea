/** Makes issues out of what was read, with every text bounded and made printable. */
import type { TicketPriority } from "@aau/sdk";
import { saidPriority } from "../command/words.ts";
import { oneLine, prose } from "../printable.ts";
import { type Issue, TYPES } from "../ticket.ts";

export type RawIssue = Omit<Issue, "fingerprint">;

/** Of one attachment; far more than a task files, and little enough to be read in a moment. */
export const MAX_READ = 5000;
const MAX_TITLE = 160;
const MAX_DESCRIPTION = 6000;

export interface Told {
  title: string;
  description?: string;
  severity?: string | null;
  type?: string | null;
  component?: string | null;
  assignee?: string | null;
  labels?: readonly string[];
  path?: string | null;
  line?: number | null;
  rule?: string | null;
  foundBy?: string | null;
}

const bounded = (text: string | null | undefined, max: number): string | null => (text ? oneLine(text, max) || null : null);

/** `null` when there is no word in its title. */
export function issueFrom(told: Told): RawIssue | null {
  const title = oneLine(prose(told.title.replace(/^[\s\-*•#>]+/, ""), MAX_TITLE * 2).replace(/\*\*|__|`/g, ""), MAX_TITLE);
  if (!/[\p{L}\p{N}]/u.test(title)) return null;
  const path = bounded(told.path, 300);
  const priority: TicketPriority | null = told.severity ? saidPriority(told.severity) : null;
  return {
    title,
    description: prose(told.description ?? "", MAX_DESCRIPTION),
    foundBy: told.foundBy ?? null,
    reference: path === null ? null : told.line ? `${path}:${told.line}` : path,
    path,
    line: told.line ?? null,
    given: {
      priority,
      type: TYPES.find((type) => type === told.type?.toLowerCase()) ?? null,
      component: bounded(told.component, 60),
      assignee: bounded(told.assignee, 100),
    },
    labels: (told.labels ?? [])
      .map((label) => oneLine(label, 50))
      .filter((label) => label !== "")
      .slice(0, 10),
    rule: bounded(told.rule, 100),
  };
}
