import { CallerMistake, type NodeContext } from "@aau/sdk";
import * as v from "valibot";
import { askModel } from "../ask-model.ts";
import { findReferences, type Intent, parseCommand } from "../command/parse-command.ts";
import { commandAndData } from "../sources/command-and-data.ts";
import type { TicketPatch } from "../state.ts";
import { PRIORITIES, STATUSES } from "../ticket.ts";

const WHAT_TO_SAY =
  'Say what to do with which tickets, such as "create a ticket: the export hangs on Safari", "create a ticket for each issue" with a list attached, "what is the status of T-12", "close T-12", "assign T-12 to anna", "list open tickets" or "triage the open tickets".';

const Answer = v.object({
  action: v.picklist(["create", "status", "change", "list", "none"]),
  title: v.optional(v.pipe(v.string(), v.maxLength(300))),
  status: v.optional(v.picklist(STATUSES)),
  priority: v.optional(v.picklist(PRIORITIES)),
  assignee: v.optional(v.pipe(v.string(), v.maxLength(100))),
  team: v.optional(v.pipe(v.string(), v.maxLength(100))),
  overdue: v.optional(v.boolean()),
  unassigned: v.optional(v.boolean()),
});

const PROMPT = `You read a command to a ticket system and say which one of these it asks for.
create: file one ticket; title is what it reports. status: tell how the named tickets are. change: give the named tickets another status, priority, assignee or team. list: show tickets, with conditions. none: anything else, and whatever would change tickets that the command does not name.
Use only what the command says.`;

/** For a command that the rules cannot read. The tickets to be touched are those that the command itself names. */
async function askForIntent(ctx: NodeContext, command: string): Promise<Intent | null> {
  const said = await askModel(ctx, {
    tool: "understand_command",
    system: PROMPT,
    data: command.slice(0, 4000),
    answer: Answer,
    maxTokens: 400,
    what: "The model's reading of the command",
  });
  if (!said) return null;
  const references = findReferences(command);
  const { status, priority, assignee, team } = said;
  const update = { ...(status && { status }), ...(priority && { priority }), ...(assignee && { assignee }), ...(team && { team }) };
  if (said.action === "create" && said.title) return { action: "create", title: said.title, isPlural: false, priority: priority ?? null, assignee: assignee ?? null };
  if (said.action === "status" && references.length > 0) return { action: "status", references };
  if (said.action === "change" && references.length > 0 && Object.keys(update).length > 0) return { action: "change", references, update };
  if (said.action !== "list") return null;
  const conditions = { ...(priority && { priority }), ...(assignee && { assignee }), ...(team && { team }), ...(said.overdue && { dueWithinHours: 0 }) };
  return { action: "list", query: { status: status ? [status] : ["open", "in_progress"], ...conditions, unassigned: said.unassigned } };
}

/** Finds out what the command asks for. */
export async function understand(_state: unknown, ctx: NodeContext): Promise<TicketPatch> {
  const { command, handed } = commandAndData(ctx.input.task_description);
  const intent = parseCommand(command, ctx.input.attachments.length + handed.length > 0) ?? (ctx.hasModel ? await askForIntent(ctx, command) : null);
  if (!intent) throw new CallerMistake(`This command names nothing that can be done here. ${WHAT_TO_SAY}`);
  return { intent };
}

/** Where the graph goes on. */
export function toAction({ intent }: { intent: Intent }): "read_issues" | "track" {
  return intent.action === "create" ? "read_issues" : "track";
}
