/** Where tickets live. Each tracker creates idempotently: an issue that has a ticket gets no second one, however often it is filed. */
import type { TicketPriority, TicketStatus } from "@aau/sdk";
import type { Draft, TrackedTicket } from "../ticket.ts";

/** How a person wrote a ticket's id: `T-12`, `OPS-7`, `#12`, `ticket 12`. */
export interface TicketReference {
  prefix: string | null;
  number: number;
}

export interface TicketQuery {
  status: readonly TicketStatus[];
  priority?: TicketPriority;
  type?: string;
  assignee?: string;
  team?: string;
  component?: string;
  text?: string;
  unassigned?: boolean;
  /** Not resolved, and due before this time. */
  dueBefore?: string;
}

export interface TicketUpdate {
  status?: TicketStatus;
  priority?: TicketPriority;
  assignee?: string;
  team?: string;
  slaDueAt?: string;
}

export type Filed = { outcome: "created" | "known"; ticket: TrackedTicket } | { outcome: "failed"; reason: string };
export type Changed = { outcome: "changed" | "unchanged"; ticket: TrackedTicket } | { outcome: "refused"; ticket: TrackedTicket; reason: string };

export interface Tracker {
  /** The id in this tracker; `null` when it cannot be one. */
  idOf(reference: TicketReference): string | null;
  /** In the order of the drafts. Throws when none could be filed. */
  create(drafts: readonly Draft[]): Promise<Filed[]>;
  /** At most 500; `total` counts all that fit. */
  list(query: TicketQuery): Promise<{ total: number; tickets: TrackedTicket[] }>;
  get(id: string): Promise<TrackedTicket | null>;
  change(id: string, update: TicketUpdate): Promise<Changed | null>;
}

const same = (value: string | null, wanted: string | undefined) => wanted === undefined || value?.toLowerCase() === wanted.toLowerCase();

/** For trackers that cannot be asked all this themselves. */
export function fits(ticket: TrackedTicket, query: TicketQuery): boolean {
  return (
    query.status.includes(ticket.status) &&
    (query.priority ?? ticket.priority) === ticket.priority &&
    (query.type ?? ticket.type) === ticket.type &&
    same(ticket.assignee, query.assignee) &&
    same(ticket.team, query.team) &&
    same(ticket.component, query.component) &&
    ticket.title.toLowerCase().includes((query.text ?? "").toLowerCase()) &&
    (!query.unassigned || (ticket.assignee === null && ticket.team === null)) &&
    (query.dueBefore === undefined || (ticket.resolved_at === null && ticket.sla_due_at !== null && ticket.sla_due_at < query.dueBefore))
  );
}
