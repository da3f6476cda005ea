/** Words of a command or an issue that name a priority, a status or a type. */
import type { TicketPriority, TicketStatus } from "@aau/sdk";
import type { TicketType } from "../ticket.ts";

function firstOf<Value>(pairs: readonly (readonly [Value, RegExp])[], text: string): Value | null {
  return pairs.find(([, pattern]) => pattern.test(text))?.[0] ?? null;
}

const PRIORITY_WORDS = [
  ["critical", /\b(?:critical|blocker|p[- ]?(?:0|1)|sev(?:erity)?[- ]?(?:0|1)|urgent|emergency|highest)\b/i],
  ["high", /\b(?:high(?: priority)?|p[- ]?2|sev(?:erity)?[- ]?2|major|important)\b/i],
  ["medium", /\b(?:medium|normal|moderate|p[- ]?3|sev(?:erity)?[- ]?3)\b/i],
  ["low", /\b(?:low(?:est)?|minor|trivial|p[- ]?[45]|sev(?:erity)?[- ]?[45])\b/i],
] as const satisfies readonly (readonly [TicketPriority, RegExp])[];

/** A priority that somebody said. */
export const saidPriority = (text: string): TicketPriority | null => firstOf(PRIORITY_WORDS, text);

const STATUS_WORDS = [
  ["in_progress", /\b(?:in[- _]progress|started|being worked on|under way)\b/i],
  ["resolved", /\b(?:resolved?|fixed|solved|done)\b/i],
  ["closed", /\b(?:closed?|won'?t[- ]fix|reject(?:ed)?|cancel(?:led)?)\b/i],
  ["open", /\b(?:re-?open(?:ed)?|open(?:ed)?|new)\b/i],
] as const satisfies readonly (readonly [TicketStatus, RegExp])[];

export const saidStatus = (text: string): TicketStatus | null => firstOf(STATUS_WORDS, text);

const TYPE_WORDS = [
  ["security", /\b(?:security|vulnerab\w*|injection|xss|csrf|ssrf|cwe-\d+|owasp|secrets?|credentials?|passwords?|leaked?|hard-?coded|unsafe|exploit\w*|eval|traversal|tls)\b/i],
  ["incident", /\b(?:incidents?|outages?|down(?:time)?|offline|unreachable|not responding|data loss)\b/i],
  ["performance", /\b(?:performance|slow(?:ly|er)?|latency|memory leaks?|n\+1|time-?outs?|quer(?:y|ies) in (?:a )?loops?)\b/i],
  ["bug", /\b(?:bugs?|crash\w*|errors?|exceptions?|fail\w*|broken|wrong|hangs?|does ?n[o']t work|not working|race conditions?|undefined|throws?|regression)\b/i],
  ["feature", /\b(?:features?|support for|add (?:an?|the)\b|allow|enhancements?|would like|wish)\b/i],
  ["question", /\?\s*$|\b(?:how (?:do|can)|question)\b/i],
  ["chore", /\b(?:todo|style|naming|formatting|lint|typos?|refactor\w*|clean ?up|docs?|documentation|upgrade|dependenc\w+)\b/i],
] as const satisfies readonly (readonly [TicketType, RegExp])[];

export const typeOf = (text: string): TicketType => firstOf(TYPE_WORDS, text) ?? "task";

const URGENCY = [
  ["critical", /\b(?:outage|down since|is down|are down|offline|data loss|breach|production (?:is )?down|nobody can|no one can|all (?:users|customers)|leaked)\b/i],
  ["high", /\b(?:crash\w*|security|vulnerab\w*|injection|secret|credentials?|blocked|cannot|can'?t|5\d\d\b|broken|hangs?)\b/i],
  ["low", /\b(?:typo|cosmetic|nice to have|naming|formatting|style|lint|docs?|documentation|todo)\b/i],
] as const satisfies readonly (readonly [TicketPriority, RegExp])[];

/** How urgent an issue sounds when nobody has said. */
export const soundsLike = (text: string): TicketPriority => firstOf(PRIORITY_WORDS.slice(0, 1), text) ?? firstOf(URGENCY, text) ?? "medium";

const COMPONENTS = [
  ["authentication", /\b(?:log ?ins?|sign ?ins?|auth\w*|passwords?|sso|oauth|sessions?)\b/i],
  ["payments", /\b(?:payments?|checkout|billing|invoices?|cards?|refunds?)\b/i],
  ["database", /\b(?:database|sql|postgres\w*|mysql|migrations?|quer(?:y|ies))\b/i],
  ["email", /\b(?:e-?mails?|smtp|mail server|inbox)\b/i],
  ["network", /\b(?:network|vpn|dns|wi-?fi|firewall|proxy)\b/i],
  ["mobile", /\b(?:mobile|ios|android)\b/i],
  ["frontend", /\b(?:frontend|front-end|ui|css|browser|safari|chrome|firefox|page|button)\b/i],
  ["api", /\b(?:api|endpoints?|rest|graphql|webhooks?)\b/i],
  ["search", /\bsearch\b/i],
  ["hardware", /\b(?:printers?|laptops?|monitors?|keyboards?|devices?)\b/i],
] as const satisfies readonly (readonly [string, RegExp])[];

export const componentNamed = (text: string): string | null => firstOf<string>(COMPONENTS, text);
