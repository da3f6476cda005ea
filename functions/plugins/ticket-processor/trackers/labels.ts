/** What other trackers have no field for travels in labels: `priority:high`, `component:payments`, `team:blue`. */
import type { TicketPriority } from "@aau/sdk";
import { type Draft, PRIORITIES } from "../ticket.ts";

/** Marks the tickets that this plugin made: only whoever may set labels can make one that counts. */
export const MARK = "aau-ticket";
const MAX_LABEL = 50;

const slug = (text: string) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}._-]+/gu, "-")
    .replace(/^-+|-+$/g, "");

export function label(kind: string, value: string | null): string[] {
  const text = value === null ? "" : slug(value);
  return text === "" ? [] : [`${kind}:${text}`.slice(0, MAX_LABEL)];
}

export function labelsOf(draft: Draft): string[] {
  const own = draft.labels.map(slug).filter((text) => text !== "" && text !== MARK);
  return [
    ...new Set([
      MARK,
      ...label("priority", draft.priority),
      ...label("type", draft.type),
      ...label("component", draft.component),
      ...label("team", draft.team),
      ...own.map((text) => text.slice(0, MAX_LABEL)),
    ]),
  ];
}

export const labelled = (labels: readonly string[], kind: string): string | null => labels.find((one) => one.startsWith(`${kind}:`))?.slice(kind.length + 1) ?? null;

export function priorityOf(labels: readonly string[]): TicketPriority {
  return PRIORITIES.find((priority) => priority === labelled(labels, "priority")) ?? "medium";
}

/** The labels with one kind replaced. */
export function withLabel(labels: readonly string[], kind: string, value: string | null): string[] {
  return [...labels.filter((one) => !one.startsWith(`${kind}:`)), ...label(kind, value)];
}
