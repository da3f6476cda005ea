/** What flows through the graph. It lives as long as one execution. */
import type { Warning } from "@aau/sdk";
import { Annotation } from "@langchain/langgraph";
import type { Batch, ChangedFile, Finding, RankedFinding } from "./change.ts";

const appended = <Item>() => Annotation<Item[]>({ reducer: (before, more) => [...before, ...more], default: () => [] });

export const ReviewState = Annotation.Root({
  /** Where the change came from, for the report: `pull request o/r#1`, `change.diff`. */
  source: Annotation<string>,
  files: Annotation<ChangedFile[]>,
  batches: Annotation<Batch[]>,
  /** From the branches, in the order in which they end. */
  found: appended<Finding>(),
  /** Branches that could not finish their work, such as `logic`. */
  incomplete: appended<string>(),
  /** Paths of which the rules have not seen every changed line. */
  unseen: appended<string>(),
  /** Warnings that several branches may have raised alike. */
  notices: appended<Warning>(),
  findings: Annotation<Finding[]>,
  ranked: Annotation<RankedFinding[]>,
  /** The text for a person, and how sure the review is of itself. */
  summary: Annotation<string>,
  confidence: Annotation<number>,
  hasModel: Annotation<boolean>,
});
export type ReviewState = typeof ReviewState.State;
export type ReviewPatch = typeof ReviewState.Update;

/** What `Send` gives to a branch. */
export interface BranchInput {
  batch: Batch;
}
