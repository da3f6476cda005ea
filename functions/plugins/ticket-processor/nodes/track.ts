import { CallerMistake, type NodeContext } from "@aau/sdk";
import type { Intent } from "../command/parse-command.ts";
import { type Settings, settingsOf } from "../settings.ts";
import { dueAt } from "../sla.ts";
import type { TicketPatch, TicketState } from "../state.ts";
import type { Row, TrackedTicket } from "../ticket.ts";
import { openTracker } from "../trackers/open-tracker.ts";
import type { TicketReference, TicketUpdate, Tracker } from "../trackers/tracker.ts";
import { assigneeOf } from "./assign.ts";

const HOUR_MS = 3_600_000;
/** Assigned by the rules in one task. */
const MAX_ASSIGNED = 100;

const rowOf = (outcome: Row["outcome"], ticket: TrackedTicket, note: string | null = null): Row => ({ outcome, ticket, title: ticket.title, reference: ticket.reference, note });
const nameOf = ({ prefix, number }: TicketReference) => (prefix === null ? String(number) : `${prefix}-${number}`);

/** Each of the named tickets, in order; those that are not there are named in one warning. */
async function forEachNamed(tracker: Tracker, references: readonly TicketReference[], ctx: NodeContext, work: (id: string) => Promise<Row | null>): Promise<Row[]> {
  const rows: Row[] = [];
  const missing: string[] = [];
  for (const reference of references) {
    const id = tracker.idOf(reference);
    const row = id === null ? null : await work(id);
    if (row) rows.push(row);
    else missing.push(nameOf(reference));
  }
  const notThere = `There is no ticket ${missing.join(", ")}.`;
  if (rows.length === 0) throw new CallerMistake(notThere);
  if (missing.length > 0) ctx.warn({ code: "TICKET_UNKNOWN", message: notThere });
  return rows;
}

/** Another priority moves the time when a ticket is due, counted from its beginning. */
async function change(tracker: Tracker, id: string, update: TicketUpdate, settings: Settings): Promise<Row | null> {
  const { priority } = update;
  const before = priority && (await tracker.get(id));
  const slaDueAt = before && priority !== before.priority ? dueAt(new Date(before.created_at), priority, settings) : undefined;
  const changed = await tracker.change(id, { ...update, ...(slaDueAt && { slaDueAt }) });
  return changed && rowOf(changed.outcome, changed.ticket, changed.outcome === "refused" ? changed.reason : null);
}

async function list(tracker: Tracker, { query }: Extract<Intent, { action: "list" }>): Promise<TicketPatch> {
  const { dueWithinHours, ...conditions } = query;
  const dueBefore = dueWithinHours === undefined ? undefined : new Date(Date.now() + dueWithinHours * HOUR_MS).toISOString();
  const { total, tickets } = await tracker.list({ ...conditions, dueBefore });
  return { rows: tickets.map((ticket) => rowOf("found", ticket)), total };
}

/** Tickets without an owner go to whom the rules name; those for whom no rule speaks stay. */
async function assignOpen(tracker: Tracker, settings: Settings): Promise<TicketPatch> {
  const { tickets } = await tracker.list({ status: ["open", "in_progress"], unassigned: true });
  const rows: Row[] = [];
  for (const ticket of tickets.slice(0, MAX_ASSIGNED)) {
    const { assignee, team } = assigneeOf(ticket, settings);
    const changed = assignee || team ? await tracker.change(ticket.id, { ...(assignee && { assignee }), ...(team && { team }) }) : null;
    rows.push(changed ? rowOf(changed.outcome, changed.ticket) : rowOf("found", ticket, "no rule names an owner"));
  }
  return { rows, total: tickets.length };
}

/** Answers for tickets that are there already, and changes those that the command names. */
export async function track({ intent }: TicketState, ctx: NodeContext): Promise<TicketPatch> {
  const tracker = openTracker(ctx);
  const settings = settingsOf(ctx.config);
  const none: TicketPatch = { drafts: [], duplicates: [], leftOut: 0, total: null };
  switch (intent.action) {
    case "list":
      return { ...none, ...(await list(tracker, intent)) };
    case "assign_open":
      return { ...none, ...(await assignOpen(tracker, settings)) };
    case "change": {
      const { references, update } = intent;
      return { ...none, rows: await forEachNamed(tracker, references, ctx, (id) => change(tracker, id, update, settings)) };
    }
    case "status": {
      const look = async (id: string) => {
        const ticket = await tracker.get(id);
        return ticket && rowOf("found", ticket);
      };
      return { ...none, rows: await forEachNamed(tracker, intent.references, ctx, look) };
    }
    case "create":
      return none;
  }
}
