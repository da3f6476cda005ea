/** The platform's tracker in memory: the same answers as the scope-gateway's, without a database. */
import * as v from "valibot";
import { type ChangedTicket, NewTickets, TicketChange, type TicketDetail, TicketFilter } from "../tickets.ts";

export interface TicketAnswer {
  status: 200 | 404 | 422;
  body: unknown;
}

const isUnfinished = ({ status }: TicketDetail) => status === "open" || status === "in_progress";
const is = (value: string | null, wanted: string | undefined) => wanted === undefined || value?.toLowerCase() === wanted.toLowerCase();
const NOT_FOUND: TicketAnswer = { status: 404, body: null };
const INVALID: TicketAnswer = { status: 422, body: null };

function clockOf(ticket: TicketDetail): TicketDetail {
  return { ...ticket, sla_breached: ticket.sla_due_at !== null && new Date(ticket.resolved_at ?? Date.now()) > new Date(ticket.sla_due_at) };
}

export class TicketStandIn {
  readonly #tickets = new Map<string, TicketDetail[]>();

  of(tenantId: string): readonly TicketDetail[] {
    return (this.#tickets.get(tenantId) ?? []).map(clockOf);
  }

  create(tenantId: string, taskId: string, plugin: string, body: unknown): TicketAnswer {
    const sent = v.safeParse(NewTickets, body);
    if (!sent.success) return INVALID;
    const all = this.#tickets.get(tenantId) ?? [];
    this.#tickets.set(tenantId, all);
    const filed = sent.output.tickets.map(({ found_by, reference, ...ticket }) => {
      const known = all.find((other) => other.fingerprint === ticket.fingerprint && (other.status !== "closed" || other.source.task_id === taskId));
      if (known) return { outcome: known.source.task_id === taskId ? "created" : "known", ticket: clockOf(known) };
      const at = new Date().toISOString();
      const made: TicketDetail = {
        ...ticket,
        id: `T-${all.length + 1}`,
        status: "open",
        source: { task_id: taskId, plugin: found_by ?? plugin, reference },
        sla_breached: false,
        created_at: at,
        updated_at: at,
        resolved_at: null,
        history: [{ type: "created", data: {}, task_id: taskId, at }],
      };
      all.push(made);
      return { outcome: "created", ticket: clockOf(made) };
    });
    return { status: 200, body: { tickets: filed } };
  }

  list(tenantId: string, body: unknown): TicketAnswer {
    const filter = v.safeParse(TicketFilter, body);
    if (!filter.success) return INVALID;
    const { status, priority, type, text, unassigned, due_before, order, limit, ...people } = filter.output;
    const fitting = this.of(tenantId)
      .filter((ticket) => (status?.includes(ticket.status) ?? true) && (priority?.includes(ticket.priority) ?? true) && (type ?? ticket.type) === ticket.type)
      .filter((ticket) => is(ticket.assignee, people.assignee) && is(ticket.team, people.team) && is(ticket.component, people.component))
      .filter((ticket) => ticket.title.toLowerCase().includes((text ?? "").toLowerCase()) && (!unassigned || (ticket.assignee === null && ticket.team === null)))
      .filter((ticket) => due_before === undefined || (isUnfinished(ticket) && ticket.sla_due_at !== null && new Date(ticket.sla_due_at) < new Date(due_before)))
      .reverse();
    if (order === "due") fitting.sort((a, b) => (a.sla_due_at ?? "9").localeCompare(b.sla_due_at ?? "9"));
    return { status: 200, body: { total: fitting.length, tickets: fitting.slice(0, limit) } };
  }

  get(tenantId: string, id: string): TicketAnswer {
    const ticket = this.of(tenantId).find((one) => one.id === id);
    return ticket ? { status: 200, body: ticket } : NOT_FOUND;
  }

  change(tenantId: string, taskId: string, id: string, body: unknown): TicketAnswer {
    const sent = v.safeParse(TicketChange, body);
    if (!sent.success) return INVALID;
    const all = this.#tickets.get(tenantId) ?? [];
    const ticket = all.find((one) => one.id === id);
    if (!ticket) return NOT_FOUND;
    const refuse = (outcome: ChangedTicket["outcome"]): TicketAnswer => ({ status: 200, body: { outcome, ticket: clockOf(ticket) } });
    const { note, ...change } = sent.output;
    if (ticket.status === "closed" && change.status !== undefined && change.status !== "closed" && change.status !== "open") return refuse("reopen_first");
    const hasTwin = all.some((other) => other !== ticket && other.fingerprint === ticket.fingerprint && other.status !== "closed");
    if (ticket.status === "closed" && change.status === "open" && hasTwin) return refuse("taken");
    const at = new Date().toISOString();
    const next = { ...ticket, ...change };
    if (JSON.stringify(next) !== JSON.stringify(ticket)) {
      Object.assign(ticket, next, { updated_at: at, resolved_at: next.status === "resolved" || next.status === "closed" ? (ticket.resolved_at ?? at) : null });
      ticket.history.push({ type: "changed", data: change, task_id: taskId, at });
    }
    const isNoted = ticket.history.some((event) => event.type === "noted" && event.task_id === taskId && event.data.text === note);
    if (note !== undefined && !isNoted) ticket.history.push({ type: "noted", data: { text: note }, task_id: taskId, at });
    return refuse(ticket.history.some((event) => event.task_id === taskId && event.type !== "created") ? "changed" : "unchanged");
  }
}
