/** What flows through the graph. It lives as long as one execution. */
import { Annotation } from "@langchain/langgraph";
import type { Intent } from "./command/parse-command.ts";
import type { Draft, Issue, Row, TrackedTicket } from "./ticket.ts";

/** An issue that another one, or a ticket, says already. */
export interface Duplicate {
  issue: Issue;
  /** The open ticket that it repeats; for one within the batch, the fingerprint of the first. */
  of: { ticket: TrackedTicket } | { fingerprint: string };
}

export const TicketState = Annotation.Root({
  intent: Annotation<Intent>,
  issues: Annotation<Issue[]>,
  /** Issues beyond what one task files. */
  leftOut: Annotation<number>,
  drafts: Annotation<Draft[]>,
  duplicates: Annotation<Duplicate[]>,
  rows: Annotation<Row[]>,
  /** Of a list, all that fit, shown or not. */
  total: Annotation<number | null>,
  /** A model has read the issues. */
  isReadByModel: Annotation<boolean>,
});
export type TicketState = typeof TicketState.State;
export type TicketPatch = typeof TicketState.Update;
