/** The tenant's tickets in the platform's own tracker, through the scope-gateway. */
import * as v from "valibot";
import type { NodeContext } from "./define-plugin.ts";
import { GatewayError } from "./errors.ts";
import { callDoor, requireScope, type ScopedDoor, type ScopedRequest } from "./scoped-call.ts";
import { ChangedTicket, CreatedTickets, NewTickets, TicketChange, TicketDetail, TicketFilter, TicketId, TicketList } from "./tickets.ts";

const DOOR = "the ticket store";

/** Names the field, never what stands in it. */
function checked<Schema extends v.GenericSchema>(schema: Schema, value: unknown): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  throw new TypeError(`ctx.tickets: ${v.getDotPath(parsed.issues[0]) ?? "the argument"} must be ${parsed.issues[0].expected ?? "another value"}`);
}

async function answerOf<Schema extends v.GenericSchema>(door: ScopedDoor, schema: Schema, request: ScopedRequest): Promise<v.InferOutput<Schema> | null> {
  const response = await callDoor(door, DOOR, request);
  if (response.status === 404) {
    await response.body?.cancel();
    return null;
  }
  if (!response.ok) throw new GatewayError(`${DOOR} answered ${request.method} with ${response.status}`, response.status);
  const answer = v.safeParse(schema, await response.json().catch(() => undefined));
  if (!answer.success) throw new GatewayError(`${DOOR}'s answer to ${request.method} is not what it should be`, null);
  return answer.output;
}

const json = (value: unknown) => ({ body: JSON.stringify(value), mediaType: "application/json" });
const there = <T>(answer: T | null): T => {
  if (answer === null) throw new GatewayError(`${DOOR} is not at its address`, 404);
  return answer;
};

export function scopedTickets(door: ScopedDoor): NodeContext["tickets"] {
  return {
    async create(tickets) {
      requireScope(door, "tickets:write");
      const sent = checked(NewTickets, { tickets });
      const answer = there(await answerOf(door, CreatedTickets, { method: "POST", path: "tickets", ...json(sent) }));
      if (answer.tickets.length !== tickets.length) throw new GatewayError(`${DOOR} answered with other tickets than were sent`, null);
      return answer.tickets;
    },

    async list(filter = {}) {
      requireScope(door, "tickets:read");
      const query = new URLSearchParams({ filter: JSON.stringify(checked(TicketFilter, filter)) });
      return there(await answerOf(door, TicketList, { method: "GET", path: `tickets?${query}` }));
    },

    async get(id) {
      requireScope(door, "tickets:read");
      return v.is(TicketId, id) ? await answerOf(door, TicketDetail, { method: "GET", path: `tickets/${id}` }) : null;
    },

    async change(id, change) {
      requireScope(door, "tickets:write");
      const sent = checked(TicketChange, change);
      return v.is(TicketId, id) ? await answerOf(door, ChangedTicket, { method: "PATCH", path: `tickets/${id}`, ...json(sent) }) : null;
    },
  };
}
