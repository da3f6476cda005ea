import { CallerMistake, type NodeContext } from "@aau/sdk";
import type { TicketPatch, TicketState } from "../state.ts";
import type { Row } from "../ticket.ts";
import { openTracker } from "../trackers/open-tracker.ts";

/** Puts the drafts into the tracker, and makes the rows of the result. */
export async function fileTickets({ drafts, duplicates }: TicketState, ctx: NodeContext): Promise<TicketPatch> {
  if (drafts.length > 0) ctx.report(`Filing ${drafts.length === 1 ? "1 ticket" : `${drafts.length} tickets`}`);
  const filed = drafts.length === 0 ? [] : await openTracker(ctx).create(drafts);
  const rows = drafts.map(({ title, reference }, index): Row => {
    const one = filed[index];
    if (!one || one.outcome === "failed") return { outcome: "failed", ticket: null, title, reference, note: one?.reason ?? null };
    return { outcome: one.outcome, ticket: one.ticket, title, reference, note: null };
  });
  const failed = rows.filter(({ outcome }) => outcome === "failed");
  if (failed.length > 0 && failed.length === rows.length) throw new CallerMistake(`No ticket could be filed: ${failed[0]?.note ?? "the tracker refused"}.`);
  if (failed.length > 0)
    ctx.warn({ code: "TICKETS_MISSING", message: `${failed.length} of ${rows.length} tickets could not be filed: ${failed[0]?.note ?? "the tracker refused"}` });

  const byFingerprint = new Map(drafts.map((draft, index) => [draft.fingerprint, rows[index]?.ticket ?? null]));
  const repeated = duplicates.map(({ issue: { title, reference }, of }): Row => {
    const ticket = "ticket" in of ? of.ticket : (byFingerprint.get(of.fingerprint) ?? null);
    return { outcome: "duplicate", ticket, title, reference, note: ticket ? `says the same as ${ticket.id}` : null };
  });
  return { rows: [...rows, ...repeated], total: null };
}
