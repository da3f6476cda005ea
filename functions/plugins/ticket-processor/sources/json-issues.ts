/** Issues in JSON: a list of objects, wherever it stands, or what an earlier step of the task gave back. */
import { issueFrom, MAX_READ, type RawIssue } from "./issue-from.ts";
import { issuesInText } from "./text-lists.ts";

const LISTS = ["comments", "findings", "issues", "tickets", "bugs", "problems", "vulnerabilities", "errors", "items", "tasks", "results", "alerts"] as const;
const TITLES = ["title", "summary", "message", "name", "subject", "headline"] as const;
const TEXTS = ["description", "body", "details", "text", "message"] as const;

type Fields = Record<string, unknown>;
const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);

function textAt(fields: Fields, names: readonly string[]): string | null {
  for (const name of names) {
    const value = fields[name];
    if (typeof value === "string" && value.trim() !== "") return value;
  }
  return null;
}

function numberAt(fields: Fields, names: readonly string[]): number | null {
  for (const name of names) {
    const value = fields[name];
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  }
  return null;
}

/** A review's comment begins with its severity and rule, as in `**high** (sql-injection, CWE-89): …`. */
const COMMENT_HEAD = /^\*\*\w+\*\*\s*\(([^)\n]*)\):\s*/;
/** Weaknesses of speed and upkeep; the others in the list are of security. */
const SLOW = new Set(["CWE-1050", "CWE-1333", "CWE-407", "CWE-834"]);
function sentence(text: string): string {
  const paragraph = text.split(/\n{2,}/, 1)[0] ?? "";
  return /^.{1,140}?[.!?](?=\s|$)/s.exec(paragraph)?.[0].replace(/\.$/, "") ?? paragraph.split("\n", 1)[0] ?? "";
}

function issueOf(value: unknown, foundBy: string | null): RawIssue | null {
  if (typeof value === "string") return issueFrom({ title: sentence(value), description: value, foundBy });
  if (!isFields(value)) return null;
  const text = textAt(value, TEXTS) ?? "";
  const body = text.replace(COMMENT_HEAD, "");
  const weakness = textAt(value, ["cwe"]) ?? /CWE-\d{1,5}/.exec(COMMENT_HEAD.exec(text)?.[1] ?? "")?.[0] ?? null;
  const title = textAt(value, TITLES) ?? sentence(body);
  const path = textAt(value, ["path", "file", "filename"]);
  const suggestion = textAt(value, ["suggestion", "fix", "recommendation"]);
  const description = [body, suggestion && !body.includes(suggestion) ? `Suggestion: ${suggestion}` : ""].filter((part) => part !== "").join("\n\n");
  const rule = textAt(value, ["rule", "rule_id", "ruleId", "check", "code"]);
  const labels = Array.isArray(value.labels) ? value.labels.filter((label) => typeof label === "string") : [];
  return issueFrom({
    title,
    description,
    severity: textAt(value, ["severity", "priority", "level"]),
    type: textAt(value, ["type", "kind"]) ?? (weakness && (SLOW.has(weakness) ? "performance" : "security")),
    component: textAt(value, ["component", "module", "area"]),
    assignee: foundBy === null ? textAt(value, ["assignee", "owner"]) : null,
    labels: foundBy === null ? labels : [rule, weakness].filter((label) => label !== null),
    path,
    line: numberAt(value, ["line", "line_number", "start_line"]),
    rule,
    foundBy,
  });
}

const isIssueLike = (value: unknown): boolean => typeof value === "string" || (isFields(value) && textAt(value, [...TITLES, ...TEXTS]) !== null);

/** The first list of issues in a value, at most three levels deep; an empty list of a known name counts: then there are none. */
function listIn(value: unknown, depth = 0): unknown[] | null {
  if (Array.isArray(value)) return value.length === 0 || value.some(isIssueLike) ? value : null;
  if (depth > 3 || !isFields(value)) return null;
  for (const name of LISTS) {
    const list = value[name];
    if (Array.isArray(list)) return listIn(list, depth + 1);
  }
  for (const inner of Object.values(value)) {
    const list = isFields(inner) ? listIn(inner, depth + 1) : null;
    if (list) return list;
  }
  return null;
}

/** `null`: there is no list in it, and no text that holds one. `foundBy` is the plugin that said it. */
export function issuesInJson(value: unknown, foundBy: string | null): RawIssue[] | null {
  const list = listIn(value);
  if (list) return list.slice(0, MAX_READ).flatMap((item) => issueOf(item, foundBy) ?? []);
  if (isFields(value)) {
    // A step that gives text alone.
    if (typeof value.result === "string" && "status" in value) return issuesInText(value.result, { isPlural: false, foundBy });
    const one = isIssueLike(value) ? issueOf(value, foundBy) : null;
    if (one) return [one];
  }
  return typeof value === "string" ? issuesInText(value, { isPlural: false, foundBy }) : null;
}
