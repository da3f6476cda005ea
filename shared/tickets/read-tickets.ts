/** Statements that read tickets, always of one tenant. */
import { type Expression, type SqlBool, sql } from "kysely";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { publicId, type TenantId } from "../ids.ts";
import type { TicketDetail, TicketFilter, TicketList } from "../sdk/src/tickets.ts";
import { TicketRow, Time } from "./ticket-row.ts";

/** `%` and `_` stand for themselves. */
const containing = (text: string) => `%${text.replace(/[\\%_]/g, "\\$&")}%`;

export async function listTickets(db: TenantDb, tenantId: TenantId, filter: v.InferOutput<typeof TicketFilter>): Promise<TicketList> {
  return db.tenant(tenantId, async (tx) => {
    const fitting = tx.selectFrom("tickets as t").where((eb) => {
      const all: Expression<SqlBool>[] = [eb("t.tenant_id", "=", tenantId)];
      if (filter.status) all.push(eb("t.status", "in", filter.status));
      if (filter.priority) all.push(eb("t.priority", "in", filter.priority));
      if (filter.type) all.push(eb("t.type", "=", filter.type));
      // People and teams are written by hand, in commands and settings: their case says nothing.
      for (const column of ["assignee", "team", "component"] as const) {
        const wanted = filter[column];
        if (wanted !== undefined) all.push(eb(sql`lower(${eb.ref(`t.${column}`)})`, "=", wanted.toLowerCase()));
      }
      if (filter.text) all.push(eb("t.title", "ilike", containing(filter.text)));
      if (filter.unassigned) all.push(eb("t.assignee", "is", null), eb("t.team", "is", null));
      if (filter.due_before) all.push(eb("t.sla_due_at", "<", new Date(filter.due_before)), eb("t.status", "in", ["open", "in_progress"]));
      return eb.and(all);
    });
    const { total } = await fitting.select((eb) => eb.fn.countAll<string>().as("total")).executeTakeFirstOrThrow();
    const rows = await fitting
      .select(sql<unknown>`ticket_json(t)`.as("ticket"))
      .$if(filter.order === "due", (query) => query.orderBy(sql`t.sla_due_at ASC NULLS LAST`))
      .orderBy("t.number", "desc")
      .limit(filter.limit)
      .execute();
    return { total: Number(total), tickets: v.parse(v.array(v.object({ ticket: TicketRow })), rows).map(({ ticket }) => ticket) };
  });
}

const MAX_HISTORY = 200;
const Event = v.object({ type: v.picklist(["created", "changed", "noted"]), data: v.record(v.string(), v.unknown()), task_id: v.string(), at: Time });

/** With its history, the last 200 events; `null` when the tenant has no such ticket. */
export async function findTicket(db: TenantDb, tenantId: TenantId, number: number): Promise<TicketDetail | null> {
  return db.tenant(tenantId, async (tx) => {
    const row = await tx
      .selectFrom("tickets as t")
      .select(["t.description", sql<unknown>`ticket_json(t)`.as("ticket")])
      .where("t.tenant_id", "=", tenantId)
      .where("t.number", "=", number)
      .executeTakeFirst();
    if (!row) return null;
    const events = await tx
      .selectFrom("ticket_events")
      .select(["type", "data", "task_id", "at"])
      .where("tenant_id", "=", tenantId)
      .where("number", "=", number)
      .orderBy("id", "desc")
      .limit(MAX_HISTORY)
      .execute();
    const history = v.parse(v.array(Event), events.reverse()).map((event) => ({ ...event, task_id: publicId("task", event.task_id) }));
    return { ...v.parse(TicketRow, row.ticket), description: row.description, history };
  });
}
