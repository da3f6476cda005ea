/** The result: a table for people, the same as data for programs, and what to do next. */
import type { PluginResult } from "@aau/sdk";
import { cell } from "./printable.ts";
import type { TicketState } from "./state.ts";
import type { Outcome, Row } from "./ticket.ts";

/** In the table; `data.tickets` holds all. */
const SHOWN = 30;
const MAX_ROWS = 500;

const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;
const link = ({ ticket }: Row) => (ticket === null ? "–" : ticket.url === null ? ticket.id : `[${ticket.id}](${ticket.url})`);
const due = ({ ticket }: Row) => (ticket?.sla_due_at ? `${ticket.sla_due_at.slice(0, 16).replace("T", " ")}${ticket.sla_breached ? " **breached**" : ""}` : "–");
const owner = ({ ticket }: Row) => cell([ticket?.assignee, ticket?.team && `team ${ticket.team}`].filter(Boolean).join(", "), 60);

function table(rows: readonly Row[], isFiled: boolean): string {
  const lines = rows.map((row) => {
    const { ticket, title, reference } = row;
    const about = isFiled ? [cell(row.note ? `${row.outcome}: ${row.note}` : row.outcome, 120)] : [];
    const where = reference === null ? "" : ` (${cell(reference, 80)})`;
    const cells = [
      link(row),
      ...about,
      `${cell(title, 90)}${where}`,
      cell(ticket?.type ?? null, 30),
      ticket?.priority ?? "–",
      ticket?.status.replace("_", " ") ?? "–",
      owner(row),
      due(row),
    ];
    return `| ${cells.join(" | ")} |`;
  });
  const head = ["Ticket", ...(isFiled ? ["Outcome"] : []), "Title", "Type", "Priority", "Status", "Owner", "Due (UTC)"];
  return [`| ${head.join(" | ")} |`, `|${head.map(() => "---").join("|")}|`, ...lines].join("\n");
}

function heading({ intent, rows, total }: TicketState): string {
  const count = (outcome: Outcome) => rows.filter((row) => row.outcome === outcome).length;
  const said = (outcome: Outcome, text: string) => (count(outcome) > 0 ? [`${count(outcome)} ${text}`] : []);
  const counts = [
    ...said("created", "created"),
    ...said("known", "there already"),
    ...said("duplicate", "said twice"),
    ...said("changed", "changed"),
    ...said("unchanged", "as asked for already"),
    ...said("refused", "refused"),
    ...said("failed", "not filed"),
  ].join(", ");
  if (intent.action === "list") return `## Tickets: ${total === 0 ? "none" : total}`;
  if (intent.action === "status") return `## ${plural(rows.length, "ticket")}`;
  return `## Tickets: ${counts || "none"}`;
}

function dataOf({ outcome, ticket, title, reference, note }: Row) {
  const { id = null, url = null, type = null, priority = null, status = null, assignee = null, team = null, component = null, labels = [] } = ticket ?? {};
  const { sla_due_at = null, sla_breached = false, created_at = null } = ticket ?? {};
  return { outcome, id, url, title, type, priority, status, assignee, team, component, labels, sla_due_at, sla_breached, created_at, reference, note };
}

function nextSteps(state: TicketState): string[] {
  const { intent, rows, leftOut } = state;
  const steps: string[] = [];
  const first = (test: (row: Row) => boolean) => rows.find(test)?.ticket?.id;
  if (intent.action === "create") {
    const done = first(({ outcome, ticket }) => outcome === "known" && ticket?.status === "resolved");
    if (done) steps.push(`An issue that was resolved is there again: "reopen ${done}".`);
    const orphan = first(({ outcome, ticket }) => outcome === "created" && ticket?.assignee === null && ticket.team === null);
    if (orphan) steps.push(`Nobody owns some of the tickets: add rules or default_assignee to the plugin's configuration, or say "assign ${orphan} to …".`);
    if (rows.some(({ outcome }) => outcome === "failed")) steps.push("Run the task again: what is filed already is not filed twice.");
    if (leftOut > 0) steps.push("Attach the issues that were left out to another task.");
  }
  const late = rows.filter(({ ticket }) => ticket?.sla_breached && (ticket.status === "open" || ticket.status === "in_progress"));
  if (late.length > 0) steps.push(`${plural(late.length, "ticket")} past due, such as ${late[0]?.ticket?.id}.`);
  return steps;
}

/** Rules read a command exactly or not at all; what they say of an issue is a guess that a model makes better. */
function confidenceOf({ intent, isReadByModel }: TicketState): number {
  if (intent.action !== "create") return 0.95;
  return isReadByModel ? 0.9 : 0.75;
}

export function finish(state: TicketState): PluginResult {
  const { intent, rows, leftOut, total } = state;
  const isMissing = leftOut > 0 || rows.some(({ outcome }) => outcome === "failed");
  const isFiled = intent.action !== "list" && intent.action !== "status";
  const more = Math.max((total ?? rows.length) - SHOWN, 0);
  const nothing = intent.action === "create" ? "There was no issue to make a ticket of." : "No ticket fits.";
  const body = rows.length === 0 ? nothing : table(rows.slice(0, SHOWN), isFiled);
  const count = (outcome: Outcome) => rows.filter((row) => row.outcome === outcome).length;
  return {
    status: isMissing ? "partial" : "success",
    result: [heading(state), body, more > 0 ? `${plural(more, "more ticket")} in data.tickets.` : ""].filter((part) => part !== "").join("\n\n"),
    data: {
      action: intent.action,
      summary: { created: count("created"), known: count("known"), duplicates: count("duplicate"), changed: count("changed"), failed: count("failed"), left_out: leftOut },
      total: total ?? rows.length,
      tickets: rows.slice(0, MAX_ROWS).map(dataOf),
    },
    confidence: confidenceOf(state),
    nextSteps: nextSteps(state),
  };
}
