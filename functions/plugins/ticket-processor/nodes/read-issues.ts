import { CallerMistake, type NodeContext } from "@aau/sdk";
import { fingerprintOf } from "../fingerprint.ts";
import { commandAndData } from "../sources/command-and-data.ts";
import { issueFrom, type RawIssue } from "../sources/issue-from.ts";
import { readAttachments } from "../sources/read-attachments.ts";
import { issuesInText } from "../sources/text-lists.ts";
import type { TicketPatch, TicketState } from "../state.ts";
import type { Issue } from "../ticket.ts";

/** In one task; what the platform's tracker files in one call. */
const MAX_ISSUES = 200;
const NOTHING = "There is nothing to make a ticket of. Say what it is about (create a ticket: the export hangs on Safari), or attach a list of issues as text, Markdown or JSON.";

/**
 * The same finding at several lines of one file is several issues, told apart by their order; twice at one line it is one. Reports that are not
 * about a file stay apart by their titles.
 */
function withFingerprints(raw: readonly RawIssue[]): Issue[] {
  const kindOf = ({ path, rule, title }: RawIssue) => JSON.stringify([path, rule, title]);
  const lines = new Map<string, Set<number>>();
  const found = raw.filter((issue) => {
    if (issue.path === null) return true;
    const known = lines.get(kindOf(issue)) ?? new Set();
    lines.set(kindOf(issue), known);
    const isNew = !known.has(issue.line ?? 0);
    known.add(issue.line ?? 0);
    return isNew;
  });
  return found.map((issue) => {
    const before = [...(lines.get(kindOf(issue)) ?? [])].filter((line) => line < (issue.line ?? 0)).length;
    return { ...issue, fingerprint: fingerprintOf({ ...issue, occurrence: before + 1 }) };
  });
}

/** Gathers the issues: from what the command says, else from what earlier steps and attachments hold. */
export function readIssues({ intent }: TicketState, ctx: NodeContext): TicketPatch {
  if (intent.action !== "create") return { issues: [], leftOut: 0 };
  const { command, handed } = commandAndData(ctx.input.task_description);
  const [, ...below] = command.split("\n");
  const own = intent.title === null ? null : issueFrom({ title: intent.title, description: below.join("\n"), severity: intent.priority, assignee: intent.assignee });
  const read = own ? null : readAttachments([...ctx.input.attachments, ...handed], intent.isPlural);
  const listed = own || read?.sources || below.join("").trim() === "" ? [] : issuesInText(below.join("\n"), { isPlural: true });
  const raw = own ? [own] : [...(read?.issues ?? []), ...listed];
  for (const note of read?.notes.slice(0, 10) ?? []) ctx.warn({ code: "INPUT_NOT_READ", message: note });
  // A review that found nothing is a good answer; nothing to look at is not.
  if (raw.length === 0 && !read?.sources) throw new CallerMistake([...(read?.notes.slice(0, 3) ?? []), NOTHING].join(" "));

  const issues = withFingerprints(raw).map((issue) => ({ ...issue, given: { ...issue.given, assignee: intent.assignee ?? issue.given.assignee } }));
  const leftOut = Math.max(issues.length - MAX_ISSUES, 0);
  if (leftOut > 0)
    ctx.warn({ code: "ISSUES_CUT", message: `${issues.length} issues were found, and one task files ${MAX_ISSUES}: ${leftOut} were left out. Attach the rest to another task.` });
  return { issues: issues.slice(0, MAX_ISSUES), leftOut };
}
