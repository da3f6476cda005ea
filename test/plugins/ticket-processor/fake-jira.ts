/** The part of Jira Cloud's REST API v3 that the plugin speaks to: one project with a plain workflow, in memory. */
import { type FakeServer, startFakeServer } from "./fake-server.ts";

const STATUS = {
  "11": { name: "To Do", statusCategory: { key: "new" } },
  "21": { name: "In Progress", statusCategory: { key: "indeterminate" } },
  "31": { name: "Done", statusCategory: { key: "done" } },
  "41": { name: "Closed", statusCategory: { key: "done" } },
};

interface FakeIssue {
  id: string;
  key: string;
  fields: {
    summary: string;
    description: unknown;
    labels: string[];
    status: (typeof STATUS)["11"];
    assignee: { displayName: string } | null;
    created: string;
    updated: string;
    resolutiondate: string | null;
  };
}

const PEOPLE = [{ accountId: "5b10", displayName: "Anna", emailAddress: "anna@acme.example" }];

/** `hasPriority` false plays a project whose create screen has no priority. */
export async function startFakeJira({ hasPriority = true } = {}): Promise<FakeServer & { issues: FakeIssue[] }> {
  const issues: FakeIssue[] = [];
  const server = await startFakeServer(({ method, path, query, body }) => {
    const now = new Date().toISOString().replace("Z", "+0000");
    if (path === "/rest/api/3/search/jql") {
      const labels = [...String(body.jql).matchAll(/"(aau-fp-[0-9a-f]+)"/g)].map(([, label]) => label ?? "");
      const found = issues.filter(({ fields }) => labels.length === 0 || labels.some((label) => fields.labels.includes(label)));
      return { status: 200, body: { issues: /statusCategory != Done/.test(body.jql) ? found.filter(({ fields }) => fields.status.statusCategory.key !== "done") : found } };
    }
    if (path === "/rest/api/3/user/assignable/search")
      return { status: 200, body: PEOPLE.filter(({ displayName }) => displayName.toLowerCase() === query.get("query")?.toLowerCase()) };
    if (path === "/rest/api/3/issue" && method === "POST") {
      if (body.fields.project.key !== "OPS") return { status: 400, body: { errorMessages: [], errors: { project: "valid project is required" } } };
      if (!hasPriority && body.fields.priority) return { status: 400, body: { errorMessages: [], errors: { priority: "Field 'priority' cannot be set." } } };
      const id = String(10_000 + issues.length);
      const { summary, description, labels, assignee } = body.fields;
      const person = PEOPLE.find(({ accountId }) => accountId === assignee?.accountId) ?? null;
      issues.push({
        id,
        key: `OPS-${issues.length + 1}`,
        fields: { summary, description, labels, status: STATUS["11"], assignee: person, created: now, updated: now, resolutiondate: null },
      });
      return { status: 201, body: { id, key: `OPS-${issues.length}`, self: "" } };
    }
    const [, key, more] = /^\/rest\/api\/3\/issue\/([A-Z]+-\d+)(?:\/(\w+))?$/.exec(path) ?? [];
    const issue = issues.find((one) => one.key === key);
    if (!issue) return { status: 404, body: { errorMessages: ["Issue does not exist or you do not have permission to see it."], errors: {} } };
    if (more === "transitions" && method === "GET") return { status: 200, body: { transitions: Object.entries(STATUS).map(([id, to]) => ({ id, name: to.name, to })) } };
    if (more === "transitions") {
      const status = STATUS[body.transition.id as keyof typeof STATUS];
      Object.assign(issue.fields, { status, resolutiondate: status.statusCategory.key === "done" ? now : null });
      return { status: 204 };
    }
    if (more === "assignee") issue.fields.assignee = PEOPLE.find(({ accountId }) => accountId === body.accountId) ?? null;
    else if (more === "comment") return { status: 201, body: {} };
    else if (method === "PUT") Object.assign(issue.fields, body.fields);
    return method === "GET" ? { status: 200, body: issue } : { status: 204 };
  });
  return Object.assign(server, { issues });
}
