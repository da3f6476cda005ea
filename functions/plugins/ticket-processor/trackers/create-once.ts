/**
 * Files issues in a tracker that knows no unique keys: look, create what is missing, look again. Where two tasks filed the same issue at the
 * same time, both then see both tickets; the older one stays and the maker of the other takes it back, so both come to the same end.
 */
import { CallerMistake, UpstreamUnavailable } from "@aau/sdk";
import type { Draft, TrackedTicket } from "../ticket.ts";
import type { Filed } from "./tracker.ts";

export interface OutsideTracker {
  /** Tickets that are not closed, by the fingerprint, oldest first. */
  lookUp(fingerprints: readonly string[]): Promise<ReadonlyMap<string, readonly TrackedTicket[]>>;
  createOne(draft: Draft): Promise<TrackedTicket>;
  /** Takes back a ticket that this task has just made. */
  discard(id: string, inFavourOf: TrackedTicket): Promise<void>;
}

/** A ticket that the tracker refuses says nothing about the next one. */
export class TicketRefused extends CallerMistake {}

const REPORT_EVERY = 20;

export async function createOnce(tracker: OutsideTracker, drafts: readonly Draft[], report: (message: string) => void): Promise<Filed[]> {
  const fingerprints = drafts.map(({ fingerprint }) => fingerprint);
  const before = await tracker.lookUp(fingerprints);
  const filed: Filed[] = [];
  let stop: Error | null = null;
  for (const draft of drafts) {
    const [known] = before.get(draft.fingerprint) ?? [];
    if (known) filed.push({ outcome: "known", ticket: known });
    else if (stop) filed.push({ outcome: "failed", reason: stop.message });
    else {
      try {
        filed.push({ outcome: "created", ticket: await tracker.createOne(draft) });
      } catch (error) {
        if (!(error instanceof CallerMistake || error instanceof UpstreamUnavailable)) throw error;
        // With nothing done yet, the platform may try the whole again.
        if (!(error instanceof TicketRefused) && !filed.some(({ outcome }) => outcome === "created")) throw error;
        if (!(error instanceof TicketRefused)) stop = error;
        filed.push({ outcome: "failed", reason: error.message });
      }
    }
    if (filed.length % REPORT_EVERY === 0) report(`Filed ${filed.length} of ${drafts.length}`);
  }
  if (!filed.some(({ outcome }) => outcome === "created") || stop) return filed;

  const after = await tracker.lookUp(fingerprints);
  return Promise.all(
    filed.map(async (one, index): Promise<Filed> => {
      const [oldest] = after.get(fingerprints[index] ?? "") ?? [];
      if (one.outcome !== "created" || !oldest || oldest.id === one.ticket.id) return one;
      await tracker.discard(one.ticket.id, oldest);
      return { outcome: "known", ticket: oldest };
    }),
  );
}
