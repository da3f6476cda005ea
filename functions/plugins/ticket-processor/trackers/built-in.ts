/** The platform's own tracker. What makes it safe to file twice, and at once, is in its database. */
import type { NodeContext, Ticket } from "@aau/sdk";
import type { Draft, TrackedTicket } from "../ticket.ts";
import type { Tracker } from "./tracker.ts";

const MAX_LISTED = 500;

const tracked = ({ source, ...ticket }: Ticket): TrackedTicket => ({ ...ticket, url: null, reference: source.reference });

const REASONS = {
  reopen_first: "it is closed; reopen it first",
  taken: "its issue has another ticket by now",
} as const;

const newTicket = (draft: Draft) => ({
  fingerprint: draft.fingerprint,
  title: draft.title,
  description: draft.description,
  type: draft.type,
  priority: draft.priority,
  assignee: draft.assignee,
  team: draft.team,
  component: draft.component,
  labels: [...draft.labels],
  found_by: draft.foundBy,
  reference: draft.reference,
  sla_due_at: draft.slaDueAt,
});

export function builtInTracker(tickets: NodeContext["tickets"]): Tracker {
  return {
    idOf: ({ prefix, number }) => (prefix === null || prefix.toUpperCase() === "T" ? `T-${number}` : null),

    async create(drafts) {
      const filed = await tickets.create(drafts.map(newTicket));
      return filed.map(({ outcome, ticket }) => ({ outcome, ticket: tracked(ticket) }));
    },

    async list({ status, priority, dueBefore, ...rest }) {
      const { total, tickets: found } = await tickets.list({
        ...rest,
        status: [...status],
        priority: priority && [priority],
        due_before: dueBefore,
        order: dueBefore ? "due" : "newest",
        limit: MAX_LISTED,
      });
      return { total, tickets: found.map(tracked) };
    },

    async get(id) {
      const found = await tickets.get(id);
      if (!found) return null;
      const { description: _description, history: _history, ...ticket } = found;
      return tracked(ticket);
    },

    async change(id, { slaDueAt, ...update }) {
      const changed = await tickets.change(id, { ...update, ...(slaDueAt && { sla_due_at: slaDueAt }) });
      if (!changed) return null;
      const { outcome } = changed;
      const ticket = tracked(changed.ticket);
      return outcome === "changed" || outcome === "unchanged" ? { outcome, ticket } : { outcome: "refused", ticket, reason: REASONS[outcome] };
    },
  };
}
