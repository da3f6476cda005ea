/** The part of GitHub's REST API that the plugin speaks to: issues of one repository, in memory. */
import { type FakeServer, startFakeServer } from "./fake-server.ts";

export interface FakeIssue {
  number: number;
  html_url: string;
  title: string;
  body: string;
  state: "open" | "closed";
  assignee: { login: string } | null;
  labels: { name: string }[];
  created_at: string;
  updated_at: string;
  closed_at: string | null;
}

const COLLABORATORS = ["anna", "sam"];

export async function startFakeGithub(): Promise<FakeServer & { issues: FakeIssue[] }> {
  const issues: FakeIssue[] = [];
  const server = await startFakeServer(({ method, path, query, body }) => {
    const [, number, more] = /^\/repos\/acme\/shop\/issues(?:\/(\d+))?(\/comments)?$/.exec(path) ?? [null];
    if (!path.startsWith("/repos/acme/shop/issues")) return { status: 404, body: { message: "Not Found" } };
    const now = new Date().toISOString();
    const assignees = (body?.assignees ?? []).map((login: string) => login.toLowerCase());
    if (assignees.some((login: string) => !COLLABORATORS.includes(login))) return { status: 422, body: { message: "Validation Failed" } };
    const assignee = assignees[0] === undefined ? null : { login: assignees[0] };
    const labels = (names: string[]) => names.map((name) => ({ name }));
    if (number === undefined && method === "POST") {
      const made: FakeIssue = {
        number: issues.length + 1,
        html_url: `https://github.example/acme/shop/issues/${issues.length + 1}`,
        title: body.title,
        body: body.body,
        state: "open",
        assignee,
        labels: labels(body.labels),
        created_at: now,
        updated_at: now,
        closed_at: null,
      };
      issues.push(made);
      return { status: 201, body: made };
    }
    if (number === undefined) {
      const wanted = (query.get("labels") ?? "").split(",").filter((name) => name !== "");
      const state = query.get("state");
      const found = issues.filter((issue) => (state === "all" || issue.state === state) && wanted.every((name) => issue.labels.some((label) => label.name === name))).reverse();
      const [page, size] = [Number(query.get("page")), Number(query.get("per_page"))];
      return { status: 200, body: found.slice((page - 1) * size, page * size) };
    }
    const issue = issues.find((one) => one.number === Number(number));
    if (!issue) return { status: 404, body: { message: "Not Found" } };
    if (more) return { status: 201, body: {} };
    if (method === "PATCH") {
      if (body.labels) issue.labels = labels(body.labels);
      if (body.assignees) issue.assignee = assignee;
      if (body.state) Object.assign(issue, { state: body.state, closed_at: body.state === "closed" ? now : null });
    }
    return { status: 200, body: issue };
  });
  return Object.assign(server, { issues });
}
