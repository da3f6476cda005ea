/** Ticket Processor: makes tickets of issues, once each, gives them to whom the rules name, and keeps their status and their time. */
import { definePlugin, node } from "@aau/sdk";
import { END, START, StateGraph } from "@langchain/langgraph";
import { assign } from "./nodes/assign.ts";
import { fileTickets } from "./nodes/file-tickets.ts";
import { findDuplicates } from "./nodes/find-duplicates.ts";
import { readIssues } from "./nodes/read-issues.ts";
import { startClock } from "./nodes/start-clock.ts";
import { track } from "./nodes/track.ts";
import { triage } from "./nodes/triage.ts";
import { toAction, understand } from "./nodes/understand.ts";
import { finish } from "./report.ts";
import { Settings } from "./settings.ts";
import { TicketState } from "./state.ts";

export default definePlugin({
  name: "ticket-processor",
  version: "1.0.0",
  description: "Makes tickets of issues, triages and assigns them by your rules, and tracks their status and SLA, in a built-in tracker, GitHub Issues or Jira.",
  // The first five are those that the router was calibrated with; the others stand near to how people say it.
  capabilities: [
    "Triage new tickets, issues and incidents in the queue and set their priority, severity, labels and category.",
    "Assign a ticket to the right team, person or engineer on call, and balance or reassign the workload.",
    "Track the status and progress of tickets and tell what is open, blocked, waiting, overdue or closed.",
    "Monitor service level agreements (SLA), response times and deadlines, and warn before a ticket breaches them.",
    "Create, update, merge and close tickets in the backlog or issue tracker such as Jira or Zendesk, and find duplicates.",
    "List and show open tickets, unassigned tickets and overdue tickets.",
    "Close, reopen, resolve or assign a ticket by its number, and tell its status.",
    "Create a ticket or open an incident.",
  ],
  category: "operations",
  inputSchema: {
    type: "object",
    properties: {
      attachments: { type: "array", description: "Issues as plain text, Markdown or JSON: one ticket is made of each. What an earlier step of the task gave back counts too." },
    },
  },
  estimatedLatency: "medium",
  requiredScopes: ["context:read", "tickets:read", "tickets:write", "secrets:github_token", "secrets:jira_token"],
  // Only for the trackers that need them; the built-in one needs none.
  requiredSecretNames: ["github_token", "jira_token"],
  // A leading dot stands for all sites of a domain.
  egressHosts: ["api.github.com", ".atlassian.net"],
  tokenBudget: 30_000,
  timeoutSeconds: 300,
  configSchema: Settings,
  // What the rules say of an issue is good enough to file it.
  onRefusal: "continue",
  start: () => ({}),
  finish,

  graph: new StateGraph(TicketState)
    .addNode("understand", node(understand))
    .addNode("read_issues", node(readIssues))
    .addNode("triage", node(triage))
    .addNode("find_duplicates", node(findDuplicates))
    .addNode("assign", node(assign))
    .addNode("start_clock", node(startClock))
    .addNode("file_tickets", node(fileTickets))
    .addNode("track", node(track))
    .addEdge(START, "understand")
    .addConditionalEdges("understand", toAction, ["read_issues", "track"])
    .addEdge("read_issues", "triage")
    .addEdge("triage", "find_duplicates")
    .addEdge("find_duplicates", "assign")
    .addEdge("assign", "start_clock")
    .addEdge("start_clock", "file_tickets")
    .addEdge("file_tickets", END)
    .addEdge("track", END),
});
