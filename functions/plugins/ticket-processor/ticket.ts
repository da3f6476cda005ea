/** The vocabulary of the plugin: what was found, what is to be filed, and what stands in a tracker. */
import type { Ticket, TicketPriority, TicketStatus } from "@aau/sdk";

export const PRIORITIES = ["critical", "high", "medium", "low"] as const satisfies readonly TicketPriority[];
export const STATUSES = ["open", "in_progress", "resolved", "closed"] as const satisfies readonly TicketStatus[];
export const TYPES = ["incident", "security", "bug", "performance", "feature", "question", "chore", "task"] as const;
export type TicketType = (typeof TYPES)[number];

/** Something that may deserve a ticket. Its texts are data and were made printable when they were read. */
export interface Issue {
  readonly title: string;
  readonly description: string;
  /** The plugin that found it, if one did. */
  readonly foundBy: string | null;
  /** Where, such as `src/app.ts:12`. */
  readonly reference: string | null;
  readonly path: string | null;
  readonly line: number | null;
  /** What its source said of it; the model does not overrule that. */
  readonly given: { readonly priority: TicketPriority | null; readonly type: TicketType | null; readonly component: string | null; readonly assignee: string | null };
  readonly labels: readonly string[];
  /** The name of the rule that was broken, for findings of a review. */
  readonly rule: string | null;
  /** Of the issue, not of its wording: see fingerprint.ts. */
  readonly fingerprint: string;
}

/** An issue with all that a ticket needs. */
export interface Draft extends Issue {
  readonly type: TicketType;
  readonly priority: TicketPriority;
  readonly component: string | null;
  readonly assignee: string | null;
  readonly team: string | null;
  readonly slaDueAt: string | null;
}

/** A ticket of any tracker. */
export type TrackedTicket = Omit<Ticket, "source" | "fingerprint"> & { fingerprint: string | null; url: string | null; reference: string | null };

/**
 * `created` by this task, `known` from before, `duplicate` of another ticket that says the same in other words, `failed` to be filed;
 * `changed`, `unchanged` or `refused` by a command; `found` when it was asked for.
 */
export type Outcome = "created" | "known" | "duplicate" | "failed" | "changed" | "unchanged" | "refused" | "found";

/** A row of the result. */
export interface Row {
  readonly outcome: Outcome;
  readonly ticket: TrackedTicket | null;
  /** Of the issue that was to be filed; a ticket's title may differ. */
  readonly title: string;
  readonly reference: string | null;
  readonly note: string | null;
}
