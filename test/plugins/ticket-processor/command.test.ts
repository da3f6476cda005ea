import { describe, expect, it } from "vitest";
import { findReferences, parseCommand } from "../../../functions/plugins/ticket-processor/command/parse-command.ts";
import { likeness, words } from "../../../functions/plugins/ticket-processor/fingerprint.ts";
import { addBusinessHours } from "../../../functions/plugins/ticket-processor/sla.ts";

const T = (number: number) => ({ prefix: "T", number });
const plain = (number: number) => ({ prefix: null, number });
const open = ["open", "in_progress"];

describe("a command", () => {
  it.each([
    ["Review this change and create a ticket for each issue", { action: "create", title: null, isPlural: true }],
    ["create tickets from the attached list", { action: "create", title: null, isPlural: true }],
    ["open one incident for each group of alerts", { action: "create", title: null, isPlural: true }],
    ["make a ticket out of this mail", { action: "create", title: null, isPlural: false }],
    ["file a bug: export hangs on Safari", { action: "create", title: "export hangs on Safari" }],
    ["open a ticket for the broken printer on floor 3", { action: "create", title: "the broken printer on floor 3" }],
    ["log an incident, email server is down since 9am", { action: "create", title: "email server is down since 9am" }],
    ["ward 7 reports that the monitors are offline, raise an incident", { action: "create", title: "ward 7 reports that the monitors are offline" }],
    ["what is the status of ticket T-12", { action: "status", references: [T(12)] }],
    ["OPS-3391 any news", { action: "status", references: [{ prefix: "OPS", number: 3391 }] }],
    ["what are we waiting for on ticket 77", { action: "status", references: [plain(77)] }],
    ["close T-12", { action: "change", references: [T(12)], update: { status: "closed" } }],
    ["mark 1204 and 1207 as resolved", { action: "change", references: [plain(1204), plain(1207)], update: { status: "resolved" } }],
    ["reopen PLAT-88", { action: "change", references: [{ prefix: "PLAT", number: 88 }], update: { status: "open" } }],
    ["assign T-3 to anna", { action: "change", update: { assignee: "anna" } }],
    ["reassign 9932 to the network folks", { action: "change", references: [plain(9932)], update: { team: "network" } }],
    ["change the priority of 5521 to high", { action: "change", references: [plain(5521)], update: { priority: "high" } }],
    ["list open tickets", { action: "list", query: { status: open } }],
    ["show me everything that's overdue", { action: "list", query: { dueWithinHours: 0 } }],
    ["which tickets are about to breach sla", { action: "list", query: { dueWithinHours: 24 } }],
    ["give me a list of unassigned tickets", { action: "list", query: { unassigned: true } }],
    ["how many tickets are still open for team blue", { action: "list", query: { status: open, team: "blue" } }],
    ["list tickets assigned to anna", { action: "list", query: { assignee: "anna" } }],
    ["triage the open tickets", { action: "assign_open" }],
  ])("such as %j is understood", (command, intent) => {
    expect(parseCommand(command, false)).toMatchObject(intent);
  });

  it.each([
    "close everything older than a year",
    "close the duplicates in the queue",
    "give the three oldest requests to Tomas",
    "delete all tickets",
    "what is the weather",
  ])("that names no ticket changes none: %j", (command) => {
    const intent = parseCommand(command, false);
    expect(intent === null || intent.action === "list").toBe(true);
  });

  it("is read to its end, however long and odd it is", { timeout: 20_000 }, () => {
    for (const part of ["create a ", "ticket ", "T-1, ", "assign to ", "open ", "1 and ", "for each ", '"', "- "]) {
      const intent = parseCommand(part.repeat(20_000), false);
      expect(intent === null || "action" in intent).toBe(true);
    }
  });

  it("does not take words with numbers for tickets", () => {
    expect(findReferences("use UTF-8 and SHA-256, sev-1, within 4 hours, 3 tickets, PR-5")).toEqual([]);
  });
});

describe("two titles", () => {
  const like = (a: string, b: string) => likeness(words(a), words(b));
  it("say the same when only the wording differs", () => {
    expect(like("Checkout page crashes on Safari", "the checkout page crashed on Safari!")).toBe(1);
    expect(like("Printer on floor 3 is broken", "Printer on floor 4 is broken")).toBe(0);
    expect(like("Login is down", "Search is slow")).toBe(0);
  });
});

describe("business hours", () => {
  const office = { timezone: "Europe/Berlin", days: [1, 2, 3, 4, 5], start: "09:00", end: "17:00" };
  it.each([
    ["within a day", "2026-03-24T09:00:00Z", 4, "2026-03-24T13:00:00.000Z"],
    ["over a night", "2026-03-24T15:00:00Z", 4, "2026-03-25T11:00:00.000Z"],
    ["over a weekend on which the clocks change", "2026-03-27T15:00:00Z", 4, "2026-03-30T10:00:00.000Z"],
    ["from a night", "2026-03-25T02:00:00Z", 1, "2026-03-25T09:00:00.000Z"],
    ["from a Sunday", "2026-03-29T12:00:00Z", 8, "2026-03-30T15:00:00.000Z"],
    ["for weeks", "2026-01-05T08:00:00Z", 80, "2026-01-16T16:00:00.000Z"],
  ])("count %s", (_name, from, hours, until) => {
    expect(addBusinessHours(new Date(from), hours, office).toISOString()).toBe(until);
  });
});
