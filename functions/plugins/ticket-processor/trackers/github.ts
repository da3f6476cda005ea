/** GitHub Issues, github.com's or a GitHub Enterprise server's, by the REST API of 2022-11-28. */
import { CallerMistake, type NodeContext, type Secret, type TicketStatus } from "@aau/sdk";
import * as v from "valibot";
import type { Settings } from "../settings.ts";
import { dueAt } from "../sla.ts";
import type { Draft, TrackedTicket } from "../ticket.ts";
import { type Answer, away, call, isShared, type Service, serviceUrl } from "./call.ts";
import { createOnce, TicketRefused } from "./create-once.ts";
import { labelled, labelsOf, MARK, priorityOf, withLabel } from "./labels.ts";
import { fits, type Tracker } from "./tracker.ts";

const API = "https://api.github.com";
const PAGE = 100;
const MAX_PAGES = 10;
const MAX_LISTED = 500;
const MARKER = /<!-- aau-fingerprint: ([0-9a-f]{64}) -->/;

const Issue = v.object({
  number: v.number(),
  html_url: v.string(),
  title: v.string(),
  body: v.optional(v.nullable(v.string()), null),
  state: v.picklist(["open", "closed"]),
  assignee: v.optional(v.nullable(v.object({ login: v.string() })), null),
  labels: v.array(v.union([v.string(), v.object({ name: v.optional(v.string(), "") })])),
  created_at: v.string(),
  updated_at: v.string(),
  closed_at: v.optional(v.nullable(v.string()), null),
  pull_request: v.optional(v.unknown()),
});
type Issue = v.InferOutput<typeof Issue>;

const namesOf = (issue: Issue) => issue.labels.map((one) => (typeof one === "string" ? one : one.name));

function statusOf(issue: Issue, labels: readonly string[]): TicketStatus {
  if (issue.state === "closed") return labelled(labels, "status") === "resolved" ? "resolved" : "closed";
  return labelled(labels, "status") === "in-progress" ? "in_progress" : "open";
}

/** A title or a body must call nobody: an `@` before a name would. */
const quiet = (text: string) => text.replace(/@(?=[\w-])/g, "@\u2060");

function bodyOf(draft: Draft): string {
  const found = [draft.reference && `Found at \`${draft.reference.replaceAll("`", "'")}\``, draft.foundBy && `by ${draft.foundBy}`].filter(Boolean).join(" ");
  const due = draft.slaDueAt && `Due ${draft.slaDueAt}.`;
  return [quiet(draft.description), [found && `${found}.`, due].filter(Boolean).join(" "), `<!-- aau-fingerprint: ${draft.fingerprint} -->`]
    .filter((part) => part !== "")
    .join("\n\n");
}

export function githubTracker(settings: Settings, token: Secret | null, ctx: NodeContext): Tracker {
  const { github } = settings;
  if (!github) throw new CallerMistake("The tracker github needs the setting github.repository.");
  if (!token) throw new CallerMistake("The tracker github needs the tenant's secret github_token, with write access to issues.");
  const base = serviceUrl(github.api_url ?? API, "github.api_url");
  const service: Service = {
    name: "GitHub",
    base,
    headers: { accept: "application/vnd.github+json", "x-github-api-version": "2022-11-28", authorization: `Bearer ${token.reveal().trim()}` },
    secretName: "github_token",
    isShared: isShared(base, (host) => host === "api.github.com"),
    fetch: ctx.fetch,
    signal: ctx.signal,
  };
  const issues = `/repos/${github.repository}/issues`;

  /** The API's answer, when it is one that a ticket can be read from. */
  function understood<Schema extends v.GenericSchema>(schema: Schema, { status, json }: Answer): v.InferOutput<Schema> {
    if (status === 403) throw new CallerMistake(`GitHub does not let the secret github_token work on the issues of ${github?.repository}. It needs write access to issues.`);
    if (status === 404) throw new CallerMistake(`GitHub has no repository ${github?.repository} that the secret github_token may see.`);
    if (status === 410) throw new CallerMistake(`The repository ${github?.repository} has its issues turned off.`);
    if (status >= 300 && status < 400) throw new CallerMistake(`The repository ${github?.repository} has moved; put its new name into github.repository.`);
    if (status >= 400) throw new TicketRefused(`GitHub refused it (${status})`);
    const parsed = v.safeParse(schema, json);
    if (!parsed.success) throw away(service, "GitHub's answer could not be understood");
    return parsed.output;
  }

  function tracked(issue: Issue): TrackedTicket {
    const labels = namesOf(issue);
    const priority = priorityOf(labels);
    const due = dueAt(new Date(issue.created_at), priority, settings);
    return {
      id: `#${issue.number}`,
      url: issue.html_url,
      reference: null,
      title: issue.title,
      type: labelled(labels, "type") ?? "task",
      priority,
      status: statusOf(issue, labels),
      assignee: issue.assignee?.login ?? null,
      team: labelled(labels, "team"),
      component: labelled(labels, "component"),
      labels,
      fingerprint: labels.includes(MARK) ? (MARKER.exec(issue.body ?? "")?.[1] ?? null) : null,
      sla_due_at: due,
      sla_breached: new Date(issue.closed_at ?? Date.now()) > new Date(due),
      created_at: issue.created_at,
      updated_at: issue.updated_at,
      resolved_at: issue.closed_at,
    };
  }

  async function pages(query: Record<string, string>, max: number): Promise<TrackedTicket[]> {
    const found: Issue[] = [];
    for (let page = 1; page <= max; page += 1) {
      const search = new URLSearchParams({ ...query, per_page: String(PAGE), page: String(page) });
      const part = understood(v.array(Issue), await call(service, "GET", `${issues}?${search}`));
      found.push(...part);
      if (part.length < PAGE) break;
    }
    return found.filter(({ pull_request }) => pull_request === undefined).map(tracked);
  }

  async function lookUp(fingerprints: readonly string[]) {
    const open = await pages({ labels: MARK, state: "open", sort: "created", direction: "desc" }, MAX_PAGES);
    const resolved = await pages({ labels: `${MARK},status:resolved`, state: "closed", sort: "updated", direction: "desc" }, 1);
    const byFingerprint = new Map<string, TrackedTicket[]>(fingerprints.map((fingerprint) => [fingerprint, []]));
    for (const ticket of [...open, ...resolved]) byFingerprint.get(ticket.fingerprint ?? "")?.push(ticket);
    for (const same of byFingerprint.values()) same.sort((a, b) => Number(a.id.slice(1)) - Number(b.id.slice(1)));
    return byFingerprint;
  }

  async function createOne(draft: Draft): Promise<TrackedTicket> {
    const body = { title: quiet(draft.title), body: bodyOf(draft), labels: labelsOf(draft) };
    const assigned = draft.assignee === null ? null : await call(service, "POST", issues, { ...body, assignees: [draft.assignee] });
    // 422 is what GitHub says of a person whom it cannot assign.
    if (assigned && assigned.status !== 422) return tracked(understood(Issue, assigned));
    if (assigned) ctx.warn({ code: "NOT_ASSIGNED", message: `GitHub could not assign a ticket to ${draft.assignee}; it was filed without an assignee.` });
    return tracked(understood(Issue, await call(service, "POST", issues, body)));
  }

  const at = (id: string) => `${issues}/${id.slice(1)}`;

  async function find(id: string): Promise<Issue | null> {
    const answer = await call(service, "GET", at(id));
    if (answer.status === 404 || answer.status === 410) return null;
    const issue = understood(Issue, answer);
    return issue.pull_request === undefined ? issue : null;
  }

  return {
    idOf: ({ prefix, number }) => (prefix === null || prefix.toUpperCase() === "GH" ? `#${number}` : null),

    create: (drafts) =>
      createOnce(
        {
          lookUp,
          createOne,
          async discard(id, { id: kept }) {
            await call(service, "POST", `${at(id)}/comments`, { body: `Duplicate of ${kept}, filed at the same time.` });
            await call(service, "PATCH", at(id), { state: "closed", state_reason: "not_planned", labels: [MARK, "duplicate"] });
          },
        },
        drafts,
        ctx.report,
      ),

    async list(query) {
      const state = query.status.every((status) => status === "open" || status === "in_progress") ? "open" : "all";
      const fitting = (await pages({ state, sort: "created", direction: "desc" }, MAX_LISTED / PAGE)).filter((ticket) => fits(ticket, query));
      return { total: fitting.length, tickets: fitting };
    },

    async get(id) {
      const issue = await find(id);
      return issue && tracked(issue);
    },

    async change(id, { status, priority, assignee, team }) {
      const issue = await find(id);
      if (!issue) return null;
      const before = tracked(issue);
      let labels = namesOf(issue);
      if (priority) labels = withLabel(labels, "priority", priority);
      if (team) labels = withLabel(labels, "team", team);
      if (status) labels = withLabel(labels, "status", status === "in_progress" ? "in-progress" : status === "resolved" ? "resolved" : null);
      const isClosed = status === "resolved" || status === "closed";
      const wanted = {
        ...(status && { state: isClosed ? "closed" : "open", state_reason: isClosed ? "completed" : "reopened" }),
        ...(assignee && { assignees: [assignee] }),
        labels,
      };
      const isSame =
        (status ?? before.status) === before.status &&
        (priority ?? before.priority) === before.priority &&
        (assignee ?? before.assignee) === before.assignee &&
        (team ?? before.team) === before.team;
      if (isSame) return { outcome: "unchanged", ticket: before };
      const answer = await call(service, "PATCH", at(id), wanted);
      if (answer.status === 422) return { outcome: "refused", ticket: before, reason: "GitHub refused the change" };
      return { outcome: "changed", ticket: tracked(understood(Issue, answer)) };
    },
  };
}
