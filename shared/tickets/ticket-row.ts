/** A ticket as `ticket_json` of the database gives it, made into what plugins get. */
import * as v from "valibot";
import { publicId } from "../ids.ts";
import type { Ticket } from "../sdk/src/tickets.ts";
import { TICKET_PRIORITIES, TICKET_STATUSES } from "../sdk/src/tickets.ts";

export const Time = v.pipe(
  v.union([v.string(), v.date()]),
  v.transform((time) => new Date(time).toISOString()),
);
const Text = v.nullable(v.string());

export const TicketRow = v.pipe(
  v.object({
    id: v.string(),
    title: v.string(),
    type: v.string(),
    priority: v.picklist(TICKET_PRIORITIES),
    status: v.picklist(TICKET_STATUSES),
    assignee: Text,
    team: Text,
    component: Text,
    labels: v.array(v.string()),
    fingerprint: v.string(),
    source: v.object({ task: v.string(), plugin: v.string(), reference: Text }),
    sla_due_at: v.nullable(Time),
    sla_breached: v.boolean(),
    created_at: Time,
    updated_at: Time,
    resolved_at: v.nullable(Time),
  }),
  v.transform(({ source: { task, plugin, reference }, ...row }): Ticket => ({ ...row, source: { task_id: publicId("task", task), plugin, reference } })),
);
