/** Issues in text: the points of a Markdown list, the rows of a plain one, or one report as a whole. */
import { issueFrom, MAX_READ, type RawIssue, type Told } from "./issue-from.ts";

const POINT = /^(\s{0,8})(?:[-*+•]|\d{1,4}[.)])\s+(?:\[([ xX])\]\s+)?(.*\S)\s*$/;
const PREFIX = /^\[?\(?(critical|blocker|high|medium|low|p[0-5]|sev[0-5]|urgent)\)?\]?\s*[:\-–)]?\s+(?=\S)/i;
const TAIL = /\s*[[(](critical|blocker|high|medium|low|p[0-5]|sev[0-5]|urgent)[\])]\s*$/i;

/** `[P1] Title`, `high: Title`, `Title (low)`. */
function told(text: string, description: string): Told {
  const marked = PREFIX.exec(text) ?? TAIL.exec(text);
  const title = text.replace(PREFIX, "").replace(TAIL, "");
  return { title, description, severity: marked?.[1] ?? null };
}

/** Points of the outermost level; what is indented under one describes it. Points that are ticked off are done. */
function pointsOf(lines: readonly string[]): Told[] {
  const points = lines.flatMap((line) => {
    const point = POINT.exec(line);
    return point ? [point[1]?.length ?? 0] : [];
  });
  const outermost = Math.min(...points);
  const found: { title: string; isDone: boolean; more: string[] }[] = [];
  for (const line of lines) {
    const [, indent, tick, text = ""] = POINT.exec(line) ?? [];
    const last = found.at(-1);
    if (indent !== undefined && indent.length <= outermost + 1) found.push({ title: text, isDone: tick?.toLowerCase() === "x", more: [] });
    else if (/^#{1,6}\s/.test(line)) found.push({ title: "", isDone: true, more: [] });
    else if (last && line.trim() !== "") last.more.push(line.trim());
  }
  return found.filter(({ isDone }) => !isDone).map(({ title, more }) => told(title, more.join("\n")));
}

/** A Markdown table with a column that names a title. */
function rowsOf(lines: readonly string[]): Told[] {
  const cells = (line: string) =>
    line
      .trim()
      .replace(/^\||\|$/g, "")
      .split("|")
      .map((text) => text.trim());
  const divider = lines.findIndex((line, index) => index > 0 && /^\s*\|?[\s:|-]*-{3,}[\s:|-]*$/.test(line) && line.includes("|"));
  if (divider < 1) return [];
  const head = cells(lines[divider - 1] ?? "").map((name) => name.toLowerCase());
  const column = (...names: string[]) => head.findIndex((name) => names.includes(name));
  const at = { title: column("title", "issue", "summary", "problem", "finding", "task"), description: column("description", "details"), severity: column("severity", "priority") };
  if (at.title < 0) return [];
  const body = lines.slice(divider + 1);
  const end = body.findIndex((line) => !line.includes("|"));
  return body.slice(0, end < 0 ? undefined : end).map((line) => {
    const row = cells(line);
    return { title: row[at.title] ?? "", description: row[at.description] ?? "", severity: row[at.severity] ?? null };
  });
}

/** `isPlural`: whoever asked said that there are several, so that lines without marks are one each. */
export function issuesInText(text: string, { isPlural, foundBy = null }: { isPlural: boolean; foundBy?: string | null }): RawIssue[] {
  const lines = text.split(/\r?\n/);
  const rows = rowsOf(lines);
  const listed = rows.length > 0 ? rows : lines.some((line) => POINT.test(line)) ? pointsOf(lines) : [];
  const filled = lines.map((line) => line.trim()).filter((line) => line !== "" && !/^#{1,6}\s/.test(line));
  const all: Told[] = listed.length > 0 ? listed : isPlural ? filled.map((line) => told(line, "")) : reportOf(text);
  return all.slice(0, MAX_READ).flatMap((one) => issueFrom({ ...one, foundBy }) ?? []);
}

/** One report: a mail's subject or the first line is its title. */
function reportOf(text: string): Told[] {
  const subject = /^subject:\s*(.+)$/im.exec(text)?.[1];
  const [first = "", ...rest] = text.trim().split(/\r?\n/);
  const title = subject ?? first.replace(/^#{1,6}\s+/, "");
  return title.trim() === "" ? [] : [told(title, subject ? text : rest.join("\n"))];
}
