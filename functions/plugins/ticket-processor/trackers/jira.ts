/** Jira Cloud by its REST API v3. People are found by the name or address that a rule or a command gives. */
import { CallerMistake, type NodeContext, type Secret, type TicketStatus } from "@aau/sdk";
import * as v from "valibot";
import type { Settings } from "../settings.ts";
import { dueAt } from "../sla.ts";
import type { Draft, TrackedTicket } from "../ticket.ts";
import { type Answer, away, call, isShared, type Service, serviceUrl } from "./call.ts";
import { createOnce, TicketRefused } from "./create-once.ts";
import { labelled, labelsOf, MARK, priorityOf, withLabel } from "./labels.ts";
import { fits, type Tracker } from "./tracker.ts";

const PAGE = 100;
const MAX_LISTED = 500;
/** A query names this many fingerprints at a time. */
const LOOKED_UP = 50;
const FIELDS = ["summary", "status", "labels", "assignee", "created", "updated", "resolutiondate"];
const API = "/rest/api/3";

const Fields = v.object({
  summary: v.string(),
  status: v.object({ name: v.string(), statusCategory: v.object({ key: v.string() }) }),
  labels: v.optional(v.array(v.string()), []),
  assignee: v.optional(v.nullable(v.object({ displayName: v.optional(v.string(), ""), emailAddress: v.optional(v.string()) })), null),
  created: v.string(),
  updated: v.string(),
  resolutiondate: v.optional(v.nullable(v.string()), null),
});
const Issue = v.object({ id: v.string(), key: v.string(), fields: Fields });
type Issue = v.InferOutput<typeof Issue>;
const Found = v.object({ issues: v.array(Issue), nextPageToken: v.optional(v.nullable(v.string())) });
const Made = v.object({ id: v.string(), key: v.string() });
const Problems = v.object({ errorMessages: v.optional(v.array(v.string()), []), errors: v.optional(v.record(v.string(), v.unknown()), {}) });
const People = v.array(v.object({ accountId: v.string(), displayName: v.optional(v.string(), ""), emailAddress: v.optional(v.string(), "") }));
const Transitions = v.object({
  transitions: v.array(v.object({ id: v.string(), name: v.string(), to: v.object({ name: v.string(), statusCategory: v.object({ key: v.string() }) }) })),
});

/** Jira's default scheme; where a project has none of its own, the field is left out. */
const PRIORITY_NAMES = { critical: "Highest", high: "High", medium: "Medium", low: "Low" } as const;
const CLOSED_NAME = /clos|cancel|won'?t|reject|declin/i;
const CATEGORY: Record<TicketStatus, string> = { open: "new", in_progress: "indeterminate", resolved: "done", closed: "done" };

function statusOf({ name, statusCategory }: Issue["fields"]["status"]): TicketStatus {
  if (statusCategory.key === "done") return CLOSED_NAME.test(name) ? "closed" : "resolved";
  return statusCategory.key === "indeterminate" ? "in_progress" : "open";
}

/** A document of Jira's own format, whose text nodes are text and nothing else. */
function documentOf(draft: Draft) {
  const found = [draft.reference && `Found at ${draft.reference}`, draft.foundBy && `by ${draft.foundBy}`].filter(Boolean).join(" ");
  const paragraphs = [...draft.description.split(/\n{2,}/), found].map((text) => text.trim()).filter((text) => text !== "");
  return { type: "doc", version: 1, content: paragraphs.map((text) => ({ type: "paragraph", content: [{ type: "text", text }] })) };
}

const markOf = (fingerprint: string) => `aau-fp-${fingerprint.slice(0, 32)}`;
const iso = (time: string) => new Date(time).toISOString();

export function jiraTracker(settings: Settings, token: Secret | null, ctx: NodeContext): Tracker {
  const { jira } = settings;
  if (!jira) throw new CallerMistake("The tracker jira needs the settings jira.base_url, jira.email and jira.project.");
  if (!token) throw new CallerMistake("The tracker jira needs the tenant's secret jira_token, an API token of the account in jira.email.");
  const { project } = jira;
  const base = serviceUrl(jira.base_url, "jira.base_url");
  const isAtlassian = isShared(base, (host) => host.endsWith(".atlassian.net"));
  if (!isAtlassian) throw new CallerMistake("The setting jira.base_url must be a Jira Cloud site such as https://example.atlassian.net.");
  const service: Service = {
    name: "Jira",
    base,
    headers: { accept: "application/json", authorization: `Basic ${Buffer.from(`${jira.email}:${token.reveal().trim()}`).toString("base64")}` },
    secretName: "jira_token",
    isShared: isAtlassian,
    fetch: ctx.fetch,
    signal: ctx.signal,
  };
  const people = new Map<string, Promise<string | null>>();

  function understood<Schema extends v.GenericSchema>(schema: Schema, { status, json }: Answer): v.InferOutput<Schema> {
    if (status === 403) throw new CallerMistake(`Jira does not let the account of the secret jira_token work in the project ${project}.`);
    if (status === 404) throw new CallerMistake(`Jira has no project ${project} that the account of the secret jira_token may see.`);
    if (status >= 300) {
      const named = v.safeParse(Problems, json);
      throw new TicketRefused(
        `Jira refused it (${status}${named.success ? `; ${[...Object.keys(named.output.errors), ...named.output.errorMessages].join(", ").slice(0, 300)}` : ""})`,
      );
    }
    const parsed = v.safeParse(schema, json);
    if (!parsed.success) throw away(service, "Jira's answer could not be understood");
    return parsed.output;
  }

  function tracked({ key, fields }: Issue): TrackedTicket {
    const priority = priorityOf(fields.labels);
    const created = iso(fields.created);
    const due = dueAt(new Date(created), priority, settings);
    const status = statusOf(fields.status);
    return {
      id: key,
      url: `${base.origin}/browse/${key}`,
      reference: null,
      title: fields.summary,
      type: labelled(fields.labels, "type") ?? "task",
      priority,
      status,
      assignee: fields.assignee?.displayName || null,
      team: labelled(fields.labels, "team"),
      component: labelled(fields.labels, "component"),
      labels: fields.labels,
      fingerprint: fields.labels.includes(MARK) ? (fields.labels.find((one) => one.startsWith("aau-fp-")) ?? null) : null,
      sla_due_at: due,
      sla_breached: new Date(fields.resolutiondate ?? Date.now()) > new Date(due),
      created_at: created,
      updated_at: iso(fields.updated),
      resolved_at: fields.resolutiondate && iso(fields.resolutiondate),
    };
  }

  /** `fresh` are ids of issues that the search index may not know yet. */
  async function search(jql: string, max: number, fresh: readonly string[] = []): Promise<Issue[]> {
    const found: Issue[] = [];
    let nextPageToken: string | null | undefined;
    do {
      const body = { jql, fields: FIELDS, maxResults: PAGE, ...(nextPageToken && { nextPageToken }), ...(fresh.length > 0 && { reconcileIssues: fresh.map(Number).slice(0, 50) }) };
      const part = understood(Found, await call(service, "POST", `${API}/search/jql`, body, true));
      found.push(...part.issues);
      nextPageToken = part.nextPageToken;
    } while (nextPageToken && found.length < max);
    return found.slice(0, max);
  }

  /** An assignable person whose name or address is exactly this. */
  function accountOf(name: string): Promise<string | null> {
    const known = people.get(name);
    if (known) return known;
    const query = new URLSearchParams({ project, query: name, maxResults: "20" });
    const asked = call(service, "GET", `${API}/user/assignable/search?${query}`).then((answer) => {
      const found = v.safeParse(People, answer.json);
      const wanted = name.toLowerCase();
      const one = found.success
        ? found.output.find((person) => [person.accountId, person.displayName, person.emailAddress].some((text) => text.toLowerCase() === wanted))
        : undefined;
      if (!one) ctx.warn({ code: "NOT_ASSIGNED", message: `Jira knows nobody called ${name} who can be assigned in ${project}; tickets for them were filed without an assignee.` });
      return one?.accountId ?? null;
    });
    people.set(name, asked);
    return asked;
  }

  const madeIds: string[] = [];

  async function lookUp(fingerprints: readonly string[]) {
    const byFingerprint = new Map<string, TrackedTicket[]>();
    for (let start = 0; start < fingerprints.length; start += LOOKED_UP) {
      const part = fingerprints.slice(start, start + LOOKED_UP);
      const jql = `project = "${project}" AND labels = "${MARK}" AND labels IN (${part.map((one) => `"${markOf(one)}"`).join(", ")}) ORDER BY created ASC`;
      const issues = (await search(jql, MAX_LISTED, madeIds)).filter(({ fields }) => statusOf(fields.status) !== "closed");
      for (const fingerprint of part) {
        const same = issues.filter(({ fields }) => fields.labels.includes(markOf(fingerprint)));
        byFingerprint.set(fingerprint, same.sort((a, b) => Number(a.id) - Number(b.id)).map(tracked));
      }
    }
    return byFingerprint;
  }

  const at = (key: string) => `${API}/issue/${encodeURIComponent(key)}`;

  async function find(key: string): Promise<Issue | null> {
    const answer = await call(service, "GET", `${at(key)}?fields=${FIELDS.join(",")}`);
    return answer.status === 404 ? null : understood(Issue, answer);
  }

  async function createOne(draft: Draft): Promise<TrackedTicket> {
    const accountId = draft.assignee === null ? null : await accountOf(draft.assignee);
    const fields = {
      project: { key: project },
      issuetype: { name: jira?.issue_type },
      summary: draft.title,
      description: documentOf(draft),
      labels: [...labelsOf(draft), markOf(draft.fingerprint)],
    };
    const extra = { priority: { name: PRIORITY_NAMES[draft.priority] }, ...(accountId && { assignee: { accountId } }) };
    let answer = await call(service, "POST", `${API}/issue`, { fields: { ...fields, ...extra } });
    const problems = v.safeParse(Problems, answer.json);
    // Projects choose their own fields; labels say the priority anyway.
    if (answer.status === 400 && problems.success && Object.keys(problems.output.errors).some((name) => name in extra))
      answer = await call(service, "POST", `${API}/issue`, { fields });
    const made = understood(Made, answer);
    madeIds.push(made.id);
    const issue = await find(made.key);
    if (!issue) throw new TicketRefused("Jira does not show the ticket that it has made");
    return tracked(issue);
  }

  /** The way to a status, by category and then by name; `null` when the workflow has none from here. */
  async function transition(key: string, status: TicketStatus): Promise<boolean> {
    const { transitions } = understood(Transitions, await call(service, "GET", `${at(key)}/transitions`));
    const fitting = transitions.filter(({ to }) => to.statusCategory.key === CATEGORY[status]);
    const [chosen] =
      status === "closed" ? [...fitting.filter(({ to }) => CLOSED_NAME.test(to.name)), ...fitting] : [...fitting.filter(({ to }) => !CLOSED_NAME.test(to.name)), ...fitting];
    if (!chosen) return false;
    understood(v.unknown(), await call(service, "POST", `${at(key)}/transitions`, { transition: { id: chosen.id } }));
    return true;
  }

  return {
    idOf: ({ prefix, number }) => (prefix === null || prefix.toUpperCase() === project ? `${project}-${number}` : null),

    create: (drafts) =>
      createOnce(
        {
          lookUp,
          createOne,
          async discard(key, { id: kept }) {
            const text = `Duplicate of ${kept}, filed at the same time.`;
            await call(service, "POST", `${at(key)}/comment`, { body: { type: "doc", version: 1, content: [{ type: "paragraph", content: [{ type: "text", text }] }] } });
            await call(service, "PUT", at(key), { fields: { labels: ["duplicate"] } });
            await transition(key, "closed");
          },
        },
        drafts,
        ctx.report,
      ),

    async list(query) {
      const isUnfinished = query.status.every((status) => status === "open" || status === "in_progress");
      const found = await search(`project = "${project}"${isUnfinished ? " AND statusCategory != Done" : ""} ORDER BY created DESC`, MAX_LISTED);
      const fitting = found.map(tracked).filter((ticket) => fits(ticket, query));
      return { total: fitting.length, tickets: fitting };
    },

    async get(key) {
      const issue = await find(key);
      return issue && tracked(issue);
    },

    async change(key, { status, priority, assignee, team }) {
      const issue = await find(key);
      if (!issue) return null;
      const before = tracked(issue);
      let labels = issue.fields.labels;
      if (priority) labels = withLabel(labels, "priority", priority);
      if (team) labels = withLabel(labels, "team", team);
      if (labels.join() !== issue.fields.labels.join()) understood(v.unknown(), await call(service, "PUT", at(key), { fields: { labels } }));
      const accountId = assignee ? await accountOf(assignee) : null;
      if (accountId) understood(v.unknown(), await call(service, "PUT", `${at(key)}/assignee`, { accountId }));
      if (status && status !== before.status && !(await transition(key, status)))
        return { outcome: "refused", ticket: before, reason: `its workflow has no way from ${issue.fields.status.name} to ${status.replace("_", " ")}` };
      const after = await find(key);
      const ticket = after ? tracked(after) : before;
      return { outcome: JSON.stringify({ ...ticket, updated_at: "" }) === JSON.stringify({ ...before, updated_at: "" }) ? "unchanged" : "changed", ticket };
    },
  };
}
