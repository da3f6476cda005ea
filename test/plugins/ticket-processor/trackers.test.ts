/** GitHub and Jira, played by local servers that speak their protocols. What must hold for both is one list of tests. */
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { startFakeGithub } from "./fake-github.ts";
import { startFakeJira } from "./fake-jira.ts";
import type { Asked, FakeServer } from "./fake-server.ts";
import { dataOf, finding, newHarness, reviewFile } from "./tickets-of.ts";

const harness = newHarness();
afterAll(() => harness.close());
const TOKEN = "a-token-of-this-tenant";

interface Played {
  server: FakeServer & { issues: unknown[] };
  config: Record<string, unknown>;
  secrets: Record<string, string>;
  isCreate(asked: Asked): boolean;
  first: string;
}

async function github(): Promise<Played> {
  const server = await startFakeGithub();
  return {
    server,
    config: { tracker: "github", github: { repository: "acme/shop", api_url: server.url } },
    secrets: { github_token: TOKEN },
    isCreate: ({ method, path }) => method === "POST" && path.endsWith("/issues"),
    first: "#1",
  };
}

async function jira(options?: { hasPriority?: boolean }): Promise<Played> {
  const server = await startFakeJira(options);
  return {
    server,
    config: { tracker: "jira", jira: { base_url: server.url, email: "bot@acme.example", project: "OPS" } },
    secrets: { jira_token: TOKEN },
    isCreate: ({ method, path }) => method === "POST" && path.endsWith("/issue"),
    first: "OPS-1",
  };
}

const findings = reviewFile([
  finding({ line: 12 }),
  finding({ line: 40 }),
  finding({ path: "src/session.ts", rule: "insecure-random", message: "Math.random can be predicted.", severity: "low" }),
]);

describe.each([
  { name: "GitHub", play: github },
  { name: "Jira", play: jira },
])("the tracker $name", ({ play }) => {
  let played: Played;
  beforeEach(async () => {
    played = await play();
  });
  afterEach(() => played.server.stop());
  const run = (task: string, attachments: typeof findings = [], config: Record<string, unknown> = {}, secrets = played.secrets) =>
    harness.run({ task, attachments, pluginConfig: { ...played.config, ...config }, secrets });
  const file = (config = {}) => run("Create a ticket for each issue", findings, config);

  it("gets one ticket of each issue, with links to them, and none when they come again", async () => {
    const first = await file();
    expect(first).toMatchObject({ status: "success", warnings: [], data: { summary: { created: 3 } } });
    const [ticket] = dataOf(first).tickets;
    expect(ticket).toMatchObject({ id: played.first, priority: "high", type: "security", status: "open", component: "routes" });
    expect(first.result).toContain(`[${played.first}](${ticket?.url})`);
    expect(await file()).toMatchObject({ data: { summary: { created: 0, known: 3 } } });
    expect(played.server.issues).toHaveLength(3);
    expect(JSON.stringify(harness.lastRun.events)).not.toContain(TOKEN);
    expect(harness.lastRun.calls.filter(({ kind }) => kind === "ticket")).toEqual([]);
  });

  it("ends with one ticket of each issue when two tasks file them at once", async () => {
    const outputs = await Promise.all([file(), file(), file()]);
    const open = dataOf(await run("list open tickets")).tickets;
    expect(open).toHaveLength(3);
    for (const output of outputs)
      expect(
        dataOf(output)
          .tickets.map(({ id }) => id)
          .sort(),
      ).toEqual(open.map(({ id }) => id).sort());
  });

  it("makes no second ticket when the answer to the first was lost", async () => {
    let lost = 0;
    played.server.fault = (asked) => {
      if (!played.isCreate(asked) || lost > 0) return undefined;
      lost += 1;
      played.server.fault = null;
      // The ticket is made, and nobody hears of it.
      void fetch(`${played.server.url}${asked.path}`, { method: "POST", body: JSON.stringify(asked.body) });
      return new Promise((resolve) => setTimeout(() => resolve("hang up"), 200));
    };
    expect(await file()).toMatchObject({ status: "failed", error_code: "PLUGIN_UNAVAILABLE", error_cause: "caller" });
    expect(await file()).toMatchObject({ status: "success", data: { summary: { created: 2, known: 1 } } });
    expect(played.server.issues).toHaveLength(3);
  });

  it("tells of what is done and what is missing when it goes away in the middle", async () => {
    let made = 0;
    played.server.fault = (asked) => (played.isCreate(asked) && ++made > 1 ? { status: 502 } : undefined);
    const output = await file();
    expect(output).toMatchObject({ status: "partial", data: { summary: { created: 1, failed: 2 } }, warnings: [{ code: "TICKETS_MISSING" }] });
    expect(output.next_steps.join()).toContain("Run the task again");
    played.server.fault = null;
    expect(await file()).toMatchObject({ status: "success", data: { summary: { created: 2, known: 1 } } });
  });

  it("is waited for when it asks for patience", async () => {
    let asked = 0;
    played.server.fault = () => (++asked === 1 ? { status: 429, headers: { "retry-after": "1" } } : undefined);
    const startedAt = Date.now();
    expect(await file()).toMatchObject({ status: "success" });
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1000);
  });

  it.each([
    [401, {}, "INVALID_INPUT", "does not accept the secret"],
    [403, {}, "INVALID_INPUT", "does not let"],
    [429, { "retry-after": "3600" }, "INVALID_INPUT", "limit of requests"],
    [500, { "retry-after": "60" }, "PLUGIN_UNAVAILABLE", "answered 500"],
    [503, { "retry-after": "60" }, "PLUGIN_UNAVAILABLE", "answered 503"],
  ])("explains a %i %o as %s on the caller's side, since the tenant chose the tracker", async (status, headers, code, words) => {
    played.server.fault = () => ({ status, headers });
    const output = await file();
    expect(output).toMatchObject({ status: "failed", error_cause: "caller", error_code: code });
    expect(output.error).toContain(words);
    expect(output.error).not.toContain(TOKEN);
  });

  it("needs the tenant's secret, and says which", async () => {
    const output = await run("list open tickets", [], {}, {});
    expect(output).toMatchObject({ status: "failed", error_code: "INVALID_INPUT" });
    expect(output.error).toMatch(/needs the tenant's secret (github|jira)_token/);
  });

  it("changes and shows its tickets by command", async () => {
    await file();
    const id = played.first;
    expect(dataOf(await run(`start ticket ${id.replace(/\D/g, "")}`)).tickets).toMatchObject([{ id, status: "in_progress", outcome: "changed" }]);
    expect(dataOf(await run(`assign ${id} to Anna`)).tickets[0]?.assignee?.toLowerCase()).toBe("anna");
    expect(dataOf(await run(`change the priority of ${id} to critical`)).tickets).toMatchObject([{ priority: "critical" }]);
    expect(dataOf(await run(`mark ${id} as resolved`)).tickets).toMatchObject([{ status: "resolved" }]);
    expect(dataOf(await run(`mark ${id} as resolved`)).tickets).toMatchObject([{ outcome: "unchanged" }]);
    expect(dataOf(await run("list open tickets")).total).toBe(2);
    // Resolved is not closed: the same issue finds its ticket.
    expect(dataOf(await file()).tickets[0]).toMatchObject({ id, outcome: "known", status: "resolved" });
    expect(dataOf(await run(`close ${id}`)).tickets).toMatchObject([{ status: "closed" }]);
    expect(await run("close ticket 99")).toMatchObject({ status: "failed", error: "There is no ticket 99." });
  });

  it("files a ticket for somebody whom it does not know, without them, and says so", async () => {
    const output = await file({ default_assignee: "nobody-here" });
    expect(output).toMatchObject({ status: "success", data: { summary: { created: 3 } } });
    expect(output.warnings[0]?.code).toBe("NOT_ASSIGNED");
    expect(dataOf(await file({ default_assignee: "anna" })).tickets[0]).toMatchObject({ assignee: null, outcome: "known" });
  });
});

describe("texts of strangers", () => {
  it("call nobody on GitHub, and cannot pretend to be the mark of a ticket", async () => {
    const { server, config, secrets } = await github();
    const message = `@octocat look <!-- aau-fingerprint: ${"a".repeat(64)} -->`;
    await harness.run({ task: "Create a ticket for each issue", attachments: reviewFile([finding({ message })]), pluginConfig: config, secrets });
    expect(JSON.stringify(server.issues)).not.toMatch(/@octocat|<!-- aau-fingerprint: a{64}/);
    await server.stop();
  });
});

describe("a Jira project", () => {
  it("without priorities on its screen gets the ticket without one, its label says it", async () => {
    const { server, config, secrets } = await jira({ hasPriority: false });
    const output = await harness.run({ task: "Create a ticket for each issue", attachments: findings, pluginConfig: config, secrets });
    expect(dataOf(output).tickets.map(({ priority }) => priority)).toEqual(["high", "high", "low"]);
    await server.stop();
  });

  it("that does not exist is the caller's mistake", async () => {
    const { server, config, secrets } = await jira();
    const wrong = { ...config, jira: { base_url: server.url, email: "bot@acme.example", project: "NOPE" } };
    const output = await harness.run({ task: "Create a ticket for each issue", attachments: findings, pluginConfig: wrong, secrets });
    expect(output).toMatchObject({ status: "failed", error_code: "INVALID_INPUT" });
    expect(output.error).toContain("project");
    await server.stop();
  });

  it.each([
    "http://jira.example",
    "https://jira.example",
    "https://user:secret@acme.atlassian.net",
    "file:///etc/passwd",
    "https://acme.atlassian.net.evil.example",
  ])("is not looked for at %s", async (base_url) => {
    const output = await harness.run({
      task: "list open tickets",
      pluginConfig: { tracker: "jira", jira: { base_url, email: "bot@acme.example", project: "OPS" } },
      secrets: { jira_token: TOKEN },
    });
    expect(output).toMatchObject({ status: "failed", error_code: "INVALID_INPUT" });
    expect(output.error).toContain("jira.base_url");
  });
});
