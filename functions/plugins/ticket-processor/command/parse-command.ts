/**
 * What a command asks for, without a model. Only the command itself is read here: attachments and what other plugins said are data, and
 * nothing in them can ask for anything.
 */
import type { TicketPriority, TicketStatus } from "@aau/sdk";
import type { TicketQuery, TicketReference, TicketUpdate } from "../trackers/tracker.ts";
import { saidPriority, saidStatus } from "./words.ts";

export type ListQuery = Omit<TicketQuery, "dueBefore"> & { dueWithinHours?: number };

export type Intent =
  /** `title` is what the command itself reports; without it, issues come from attachments, `isPlural` says one ticket for each of several. */
  | { action: "create"; title: string | null; isPlural: boolean; priority: TicketPriority | null; assignee: string | null }
  | { action: "status"; references: TicketReference[] }
  | { action: "change"; references: TicketReference[]; update: TicketUpdate }
  | { action: "list"; query: ListQuery }
  /** Tickets that nobody has yet go to those whom the rules name. */
  | { action: "assign_open" };

const NOT_TICKETS = new Set(["UTF", "SHA", "SEV", "P", "CWE", "CVE", "ISO", "RFC", "HTTP", "TLS", "Q", "V", "PR"]);
const THING = "(?:tickets?|tickts?|issues?|incidents?|bugs?|cards?|requests?|work items?|story|stories|tasks?)";
const NUMBERS = "#?\\d{1,9}(?:\\s*(?:,|and|&|\\+|,\\s*and)\\s*#?\\d{1,9})*";

const numbersIn = (text: string): TicketReference[] => Array.from(text.matchAll(/\d{1,9}/g), ([digits]) => ({ prefix: null, number: Number(digits) }));

/** `T-12`, `OPS-7`, `#12`, `ticket 12`, `tickets 4, 7 and 9`, `close 1204 and 1207`. */
export function findReferences(command: string): TicketReference[] {
  const found: TicketReference[] = [];
  const text = command.replace(/\b(t|[A-Z][A-Z0-9_]{0,19})-(\d{1,9})\b/g, (all, prefix: string, digits: string) => {
    if (NOT_TICKETS.has(prefix)) return " ";
    found.push({ prefix: prefix.toUpperCase(), number: Number(digits) });
    return all.replace(/./g, " ");
  });
  for (const pattern of [
    new RegExp(`\\b${THING}\\s+(?:no\\.?\\s*|number\\s+|nr\\.?\\s*)?(${NUMBERS})\\b(?!\\s*(?:days?|hours?|weeks?|%))`, "gi"),
    new RegExp(`\\b(?:close|reopen|resolve|reassign|assign|mark|start|update|status of|priority of|move|reject|escalate)\\s+(${NUMBERS})\\b`, "gi"),
    /((?<![\w&])#\d{1,9})\b/g,
  ])
    for (const [, numbers] of text.matchAll(pattern)) found.push(...numbersIn(numbers ?? ""));
  const unique = new Map(found.filter(({ number }) => number > 0).map((reference) => [`${reference.prefix}-${reference.number}`, reference]));
  return [...unique.values()].slice(0, 50);
}

const NAME = "[\\p{L}][\\p{L}\\p{N}@._-]*";
const PRONOUN =
  /^(?:it|them|this|these|those|all|each|the|a|an|me|my|our|ticket|tickets|right|correct|team|someone|somebody|whoever|open|new|high|low|critical|medium|for|on|in|of|by|to|what)$/i;

/** Whom a command wants to give something to. A team is said to be one. */
function findPerson(command: string): { assignee?: string; team?: string } {
  const team = new RegExp(`\\bto (?:the )?(?:team (${NAME})|(${NAME}(?: ${NAME})?) (?:team|squad|group|folks|people))(?![\\p{L}\\p{N}])`, "iu").exec(command);
  const teamName = team?.[1] ?? team?.[2];
  if (teamName && !PRONOUN.test(teamName)) return { team: teamName };
  const [, name = ""] = new RegExp(`\\b(?:assign|reassign|give|hand|pass|transfer)(?:ed|ing)?\\b[^.\\n]{0,80}?\\bto (${NAME})`, "iu").exec(command) ?? [];
  const plain = name.replace(/[.,;:]+$/, "");
  return plain !== "" && !PRONOUN.test(plain) ? { assignee: plain } : {};
}

function findUpdate(command: string): TicketUpdate | null {
  const person = /\b(?:assign|reassign|give|hand|pass|transfer)/i.test(command) ? findPerson(command) : {};
  const wantsPriority = /\b(?:priority|severity|prioriti[sz]e|bump|escalate|raise|lower|(?:set|move|change|make)\b[^.]*\b(?:to|as)\s+(?:p|sev)[- ]?\d)/i.test(command);
  const priority = wantsPriority ? (saidPriority(command) ?? (/\b(?:bump|escalate|raise)\b/i.test(command) ? ("high" as const) : null)) : null;
  const status = /^\s*(?:please\s+)?(?:re-?open)\b/i.test(command)
    ? ("open" as TicketStatus)
    : /\b(?:start|begin|pick up|take)\b/i.test(command)
      ? ("in_progress" as const)
      : /\b(?:close|resolve|reject|mark|set|move|reopen|cancel|change the status)\b/i.test(command)
        ? saidStatus(command)
        : null;
  const update: TicketUpdate = { ...person, ...(priority ? { priority } : status ? { status } : {}) };
  return Object.keys(update).length > 0 ? update : null;
}

const ASKS = /^\s*(?:what|who|will|did|do|does|which|how|is|are|has|have|did|when|where|any|show|status|tell|give me)\b|\?\s*$|\bnews\b/i;
/** Changes of tickets that the command does not name, which nobody should guess. */
const CHANGES =
  /^\s*(?:please\s+)?(?:close|re-?open|resolve|reject|mark|delete|merge|link|tag|label|move|set|update|cancel|escalate|bump|give(?! me\b)|hand|re-?assign|redistribute)\b/i;
const MAKES = new RegExp(
  `\\b(?:create|creat|file|open(?= (?:an?|one|new|some|\\d+|${THING} (?:for|from|about|on))\\b)|log|raise|add(?! the\\b)|make|report(?= (?:an?|the|this|these)\\b)|submit|register|write|record|turn|split)\\b[^?]*?\\b(?:${THING}|jira|epic)(?![\\p{L}\\p{N}])`,
  "iu",
);
const LISTS =
  /\b(?:list|show|display|which|how many|count|overdue|breach\w*|sla report|unassigned|report on|what(?:'s| is| are) (?:still )?(?:open|on)|plate|backlog|queue|deadlines?)\b/i;

const EACH =
  /\b(?:(?:for|from|out of|per)\s+)?(?:each|every|all|any|both|these|those|the following)\b|\b(?:one|a)\s+(?:ticket|issue)\s+per\b|\b(?:tickets|issues|bugs|incidents)\b(?=[^:]*(?:$|\b(?:for|from|out of)\b))|\bsplit\b/i;
/** What comes after these words is in an attachment, not in the command. */
const ELSEWHERE =
  /^(?:each|every|all|any)\b|^(?:(?:the|this|that|these|those|my|our|each|every|all|any|it|them)\b\s*)*(?:attach\w*|issues?|findings?|problems?|items?|points?|files?|mails?|e-?mails?|lists?|notes?|reviews?|reports?|comments?|results?|ones?)?\s*(?:(?:of|in|from|that|it|you|above|below|found|attached)\b.*)?$/i;

function findTitle(command: string): string | null {
  const quoted = /["“”]([^"“”\n]{3,300})["“”]/.exec(command)?.[1];
  if (quoted) return quoted;
  const made = MAKES.exec(command);
  if (!made) return null;
  const rest = command.slice(made.index + made[0].length).split("\n", 1)[0] ?? "";
  const said = /^[^:,]{0,60}?(?::|,| - | – )\s*(.{3,})$/.exec(rest)?.[1] ?? /^\s*(?:for|about|on|because|that|saying|titled|called|:)\s+(.{3,})$/i.exec(rest)?.[1];
  const before = command
    .slice(0, made.index)
    .replace(/[,;]?\s*(?:(?:and|then|so)\s+)?(?:please\s*)?$/i, "")
    .trim();
  // The words before are the report in `the monitors are offline, raise an incident`, and another task in `Review this change and create …`.
  const reported = /,\s*(?:please\s*)?$/i.test(command.slice(0, made.index)) ? before : null;
  const title = (said ?? reported ?? "").replace(/[\s.]*(?:,|\band)?\s*\b(?:and\s+)?(?:assign|give)\s+(?:it|them|this)\s+to\b.*$/i, "").trim();
  return title === "" || ELSEWHERE.test(title) || title.split(/\s+/).length < 2 ? null : title;
}

function findQuery(command: string): ListQuery {
  const query: ListQuery = { status: /\b(?:all|any) (?:tickets|issues)\b|\bsla report\b/i.test(command) ? ["open", "in_progress", "resolved", "closed"] : ["open", "in_progress"] };
  const unfinished = command.replace(/\b(?:open|new) (?:and|or) in[- ]progress\b/gi, "");
  const status = saidStatus(unfinished.replace(/\b(?:re-?)?open(?:ed)?\b|\bnew\b/gi, ""));
  if (status) query.status = [status];
  else if (/\bnew\b/i.test(command)) query.status = ["open"];
  const priority = saidPriority(command);
  if (priority) query.priority = priority;
  if (/\b(?:overdue|breached|missed|late|past due)\b/i.test(command)) query.dueWithinHours = 0;
  else if (/\b(?:about to|near|soon|today|at risk|will breach|miss|breach|violat\w+|deadlines?)\b/i.test(command)) query.dueWithinHours = 24;
  if (/\b(?:unassigned|nobody|no one|without (?:an )?(?:assignee|owner))\b/i.test(command)) query.unassigned = true;
  const team = [new RegExp(`\\bteam (${NAME})`, "iu"), new RegExp(`\\b(${NAME}) (?:team|squad)(?![\\p{L}\\p{N}])`, "iu")].map((pattern) =>
    pattern.exec(command)?.[1]?.replace(/'s$/, ""),
  );
  const teamName = team.find((name) => name !== undefined && !PRONOUN.test(name));
  if (teamName) query.team = teamName;
  const [, assignee] = new RegExp(`\\b(?:assigned to|owned by) (?!team\\b)(${NAME})|\\bfor @(${NAME})`, "iu").exec(command) ?? [];
  if (assignee && !query.team && !PRONOUN.test(assignee)) query.assignee = assignee;
  const [, component] = new RegExp(`\\b(?:component|module) (${NAME})`, "iu").exec(command) ?? [];
  if (component) query.component = component;
  const [, text] = /\b(?:about|mentioning|containing|matching) ["“]?([^"”?.]{2,100})/i.exec(command.replace(/\babout to\b/gi, "")) ?? [];
  if (text) query.text = text.trim();
  const [, type] = /\b(security|performance|bug|incident|feature|question|chore)s?\b(?= (?:tickets|issues)|\s*$|\?)/i.exec(command) ?? [];
  if (type) query.type = type.toLowerCase();
  return query;
}

/** `hasAttachments`: there is something beside the command that issues can come from. `null`: it cannot be told. */
export function parseCommand(whole: string, hasAttachments: boolean): Intent | null {
  const command = whole.slice(0, 4000).trim();
  const references = findReferences(command);
  const makes =
    MAKES.test(command) && !/^\s*(?:what|who|which|how|is|are|will|did|do|does|has|have|when|where|any|please list|list|show|status)\b/i.test(command) && !CHANGES.test(command);
  if (references.length > 0 && !makes) {
    const update = ASKS.test(command) ? null : findUpdate(command);
    return update ? { action: "change", references, update } : { action: "status", references };
  }
  const create = (): Intent => {
    const title = findTitle(command);
    return {
      action: "create",
      title,
      isPlural: title === null && EACH.test(command),
      priority: title === null ? null : saidPriority(command),
      assignee: findPerson(command).assignee ?? null,
    };
  };
  if (makes) return create();
  if (CHANGES.test(command) && !hasAttachments) return null;
  const isTriage = /\b(?:triage|prioriti[sz]e|categori[sz]e|classify|sort out|assign the (?:open|new|unassigned))\b/i.test(command);
  if (LISTS.test(command) && !isTriage) return { action: "list", query: findQuery(command) };
  if (hasAttachments) return { ...create(), isPlural: true } as Intent;
  if (isTriage && new RegExp(`\\b(?:${THING}|backlog|queue|pile|inbox)\\b`, "i").test(command)) return { action: "assign_open" };
  return new RegExp(`\\b${THING}\\b`, "i").test(command) && ASKS.test(command) ? { action: "list", query: findQuery(command) } : null;
}
