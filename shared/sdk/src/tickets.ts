/** Tickets of the platform's own tracker, as they travel between a plugin and the scope-gateway. Times are RFC 3339 in UTC. */
import * as v from "valibot";

export const TICKET_PRIORITIES = ["critical", "high", "medium", "low"] as const;
export type TicketPriority = (typeof TICKET_PRIORITIES)[number];
export const TICKET_STATUSES = ["open", "in_progress", "resolved", "closed"] as const;
export type TicketStatus = (typeof TICKET_STATUSES)[number];

/** In one call of `create`, which files all or none. */
export const MAX_NEW_TICKETS = 200;
/** In one answer of `list`. */
export const MAX_LISTED_TICKETS = 500;

const Title = v.pipe(v.string(), v.minLength(1), v.maxLength(200));
const Description = v.pipe(v.string(), v.maxLength(8000));
const Type = v.pipe(v.string(), v.regex(/^[a-z][a-z-]{1,29}$/, "a type is 2 to 30 of a-z and -"));
const Person = v.nullable(v.pipe(v.string(), v.minLength(1), v.maxLength(100)));
const Component = v.nullable(v.pipe(v.string(), v.minLength(1), v.maxLength(60)));
const Labels = v.pipe(v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(50))), v.maxLength(20));
const Fingerprint = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "a fingerprint is 64 hex characters"));
const Time = v.pipe(v.string(), v.isoTimestamp());
export const TicketId = v.pipe(v.string(), v.regex(/^T-[1-9]\d{0,8}$/, "a ticket's id is T- and its number"));

export const NewTicket = v.strictObject({
  /** Says which issue this is: of the tickets that are not closed, one at most has it. */
  fingerprint: Fingerprint,
  title: Title,
  description: v.optional(Description, ""),
  type: Type,
  priority: v.picklist(TICKET_PRIORITIES),
  assignee: v.optional(Person, null),
  team: v.optional(Person, null),
  component: v.optional(Component, null),
  labels: v.optional(Labels, []),
  /** The plugin that found the issue, if another one did. */
  found_by: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(40))), null),
  /** Where it was found, such as `src/app.ts:12`. */
  reference: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(500))), null),
  sla_due_at: v.optional(v.nullable(Time), null),
});
export type NewTicket = v.InferInput<typeof NewTicket>;
export const NewTickets = v.strictObject({ tickets: v.pipe(v.array(NewTicket), v.minLength(1), v.maxLength(MAX_NEW_TICKETS)) });

export const Ticket = v.object({
  /** `T-1`, `T-2` … of each tenant. */
  id: TicketId,
  title: v.string(),
  type: v.string(),
  priority: v.picklist(TICKET_PRIORITIES),
  status: v.picklist(TICKET_STATUSES),
  assignee: v.nullable(v.string()),
  team: v.nullable(v.string()),
  component: v.nullable(v.string()),
  labels: v.array(v.string()),
  fingerprint: v.string(),
  /** The task that made it, the plugin that had found the issue, and where. */
  source: v.object({ task_id: v.string(), plugin: v.string(), reference: v.nullable(v.string()) }),
  sla_due_at: v.nullable(Time),
  /** Its time was over before it was resolved, or is over now. */
  sla_breached: v.boolean(),
  created_at: Time,
  updated_at: Time,
  resolved_at: v.nullable(Time),
});
export type Ticket = v.InferOutput<typeof Ticket>;

export const TicketEvent = v.object({ type: v.picklist(["created", "changed", "noted"]), data: v.record(v.string(), v.unknown()), task_id: v.string(), at: Time });
export const TicketDetail = v.object({ ...Ticket.entries, description: v.string(), history: v.array(TicketEvent) });
export type TicketDetail = v.InferOutput<typeof TicketDetail>;

/** What is not named stays. `note` is added to the history, once a task. */
export const TicketChange = v.strictObject({
  status: v.optional(v.picklist(TICKET_STATUSES)),
  type: v.optional(Type),
  priority: v.optional(v.picklist(TICKET_PRIORITIES)),
  assignee: v.optional(Person),
  team: v.optional(Person),
  component: v.optional(Component),
  labels: v.optional(Labels),
  sla_due_at: v.optional(v.nullable(Time)),
  note: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(2000))),
});
export type TicketChange = v.InferInput<typeof TicketChange>;

const many = <Item extends v.GenericSchema>(item: Item) => v.optional(v.pipe(v.array(item), v.maxLength(20)));
/** Conditions that all hold. `text` is looked for in titles. */
export const TicketFilter = v.strictObject({
  status: many(v.picklist(TICKET_STATUSES)),
  priority: many(v.picklist(TICKET_PRIORITIES)),
  type: v.optional(Type),
  assignee: v.optional(v.pipe(v.string(), v.maxLength(100))),
  team: v.optional(v.pipe(v.string(), v.maxLength(100))),
  component: v.optional(v.pipe(v.string(), v.maxLength(60))),
  text: v.optional(v.pipe(v.string(), v.maxLength(200))),
  unassigned: v.optional(v.boolean()),
  /** Not resolved, and due before this time. */
  due_before: v.optional(Time),
  order: v.optional(v.picklist(["newest", "due"]), "newest"),
  limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_LISTED_TICKETS)), 100),
});
export type TicketFilter = v.InferInput<typeof TicketFilter>;

/** In the order of what was sent. `known`: a ticket that is not closed has this fingerprint already. */
export const CreatedTickets = v.object({ tickets: v.array(v.object({ outcome: v.picklist(["created", "known"]), ticket: Ticket })) });
export type CreatedTickets = v.InferOutput<typeof CreatedTickets>["tickets"];

/** `reopen_first`: a closed ticket can only be opened. `taken`: the issue of the ticket to be opened has another ticket by now. */
export const ChangedTicket = v.object({ outcome: v.picklist(["changed", "unchanged", "reopen_first", "taken"]), ticket: Ticket });
export type ChangedTicket = v.InferOutput<typeof ChangedTicket>;

/** `total` counts all that fit the filter. */
export const TicketList = v.object({ total: v.number(), tickets: v.array(Ticket) });
export type TicketList = v.InferOutput<typeof TicketList>;
