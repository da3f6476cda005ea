import type { NodeContext } from "@aau/sdk";
import { likeness, words } from "../fingerprint.ts";
import type { Duplicate, TicketPatch, TicketState } from "../state.ts";
import type { Draft, TrackedTicket } from "../ticket.ts";
import { openTracker } from "../trackers/open-tracker.ts";

/** Titles that share this much say the same; measured against each other, rewordings of one report lie above, two reports of one thing below. */
const SAME = 0.75;

/**
 * Finds issues that say in other words what another one, or an open ticket, says already. Findings of a review are not compared by their words:
 * the same rule speaks alike of different places. An issue that has its own ticket is no duplicate either: filing it finds that ticket.
 */
export async function findDuplicates({ drafts }: TicketState, ctx: NodeContext): Promise<TicketPatch> {
  const reports = drafts.filter(({ path }) => path === null);
  if (reports.length === 0) return { duplicates: [] };
  const { tickets } = await openTracker(ctx).list({ status: ["open", "in_progress"] });
  const known = tickets.map((ticket) => ({ ticket, words: words(ticket.title) }));
  const own = new Set(tickets.flatMap(({ fingerprint }) => fingerprint ?? []));
  const kept: Draft[] = [];
  const firsts: { draft: Draft; words: ReadonlySet<string> }[] = [];
  const duplicates: Duplicate[] = [];

  for (const draft of drafts) {
    if (draft.path !== null) {
      kept.push(draft);
      continue;
    }
    const said = words(draft.title);
    const first = firsts.find((other) => other.draft.fingerprint === draft.fingerprint || likeness(said, other.words) >= SAME);
    const before: TrackedTicket | undefined = own.has(draft.fingerprint) ? undefined : known.find((other) => likeness(said, other.words) >= SAME)?.ticket;
    if (first) duplicates.push({ issue: draft, of: { fingerprint: first.draft.fingerprint } });
    else if (before && before.fingerprint !== draft.fingerprint) duplicates.push({ issue: draft, of: { ticket: before } });
    else {
      kept.push(draft);
      firsts.push({ draft, words: said });
    }
  }
  return { drafts: kept, duplicates };
}
