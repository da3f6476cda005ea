/** Statements that make and change tickets, each under the lease of the task that its plugin works on, and while its step has not ended. */
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { ChangedTicket, CreatedTickets, NewTickets, TicketChange } from "../sdk/src/tickets.ts";
import { TicketRow } from "./ticket-row.ts";

const isOver = () => new Refusal("CONFLICT", { message: "This execution is over; its capability ended with it." });

const Created = v.object({ place: v.number(), outcome: v.picklist(["created", "known"]), ticket: TicketRow });

/** One ticket for each fingerprint, all or none, in the order in which they came. Filing the same again finds what is there. */
export async function createTickets(db: TenantDb, { tenant, task, lease, step, plugin }: Capability, { tickets }: v.InferOutput<typeof NewTickets>): Promise<CreatedTickets> {
  const batch = JSON.stringify(tickets.map((ticket, place) => ({ place, ...ticket })));
  const rows = await db.call("SELECT place, outcome, ticket FROM create_tickets($1, $2, $3, $4, $5, $6)", [tenant, task, lease, plugin, batch, step]);
  FAILPOINT: await failpoint("tickets.after_create");
  if (rows.length === 0) throw isOver();
  const filed = v.parse(v.array(Created), rows).sort((a, b) => a.place - b.place);
  return filed.map(({ outcome, ticket }) => ({ outcome, ticket }));
}

const Changed = v.variant("outcome", [
  v.object({ outcome: v.literal("unknown") }),
  v.object({ outcome: v.picklist(["changed", "unchanged", "reopen_first", "taken"]), ticket: TicketRow }),
]);

/** `null` when the tenant has no such ticket. */
export async function changeTicket(
  db: TenantDb,
  { tenant, task, lease, step }: Capability,
  number: number,
  change: v.InferOutput<typeof TicketChange>,
): Promise<ChangedTicket | null> {
  const [row] = await db.call("SELECT outcome, ticket FROM change_ticket($1, $2, $3, $4, $5, $6)", [tenant, task, lease, number, JSON.stringify(change), step]);
  FAILPOINT: await failpoint("tickets.after_change");
  if (!row) throw isOver();
  const changed = v.parse(Changed, row);
  return changed.outcome === "unknown" ? null : changed;
}
