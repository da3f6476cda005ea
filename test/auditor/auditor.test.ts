import { describe, expect, it } from "vitest";
import { publicId } from "../../shared/ids.ts";
import { audit } from "../faults/auditor.ts";
import { holds, type Invariant } from "../faults/invariants.ts";
import type { Records } from "../faults/records.ts";

const TASK = "01a20ac7-0abb-7443-b8ad-03c0e91b6db9";
const OTHER = "01a20ac7-0abb-7443-b8ad-03c0e91b6dba";
const TENANT = "01a20ac7-0abb-7443-b8ad-000000000001";
const told = publicId("task", TASK);
const at = (ms: number) => new Date(Date.UTC(2030, 0, 15) + ms);

/** One task of one tenant that went well: submitted, read, answered from two model calls, stored and counted. */
function goodRecords(): Records {
  const call = (call_no: number, request: string) => ({
    id: `call-${call_no}`,
    task_id: TASK,
    step: "main",
    call_no,
    attempt: 1,
    state: "done",
    question: `q${call_no}/1`,
    input_tokens: 10,
    output_tokens: 5,
    cache_write_tokens: 2,
    cache_read_tokens: 1,
    cost: 100,
    ceiling: 900,
    provider_request_id: request,
    is_estimated: false,
  });
  const asked = (n: number, request: string) => ({
    call: n,
    requestId: request,
    marker: "job-1",
    status: 200,
    usage: { input_tokens: 10, output_tokens: 5, cache_creation_input_tokens: 2, cache_read_input_tokens: 1 },
    completed: true,
    closedEarly: false,
  });
  return {
    journal: [
      { at: 1, op: "submit", marker: "job-1", outcome: "invoke", deserves: { status: ["success"] }, tenant: TENANT },
      { at: 2, op: "submit", marker: "job-1", outcome: "ok", status: 202, task_id: told, seen: "queued" },
      { at: 3, op: "read", marker: "job-1", outcome: "ok", status: 200, task_id: told, seen: "success", tenant: TENANT, marks: ["job-1"] },
      { at: 1, op: "submit", marker: "job-refused", outcome: "invoke" },
      { at: 2, op: "submit", marker: "job-refused", outcome: "fail", status: 422 },
    ],
    tasks: [
      {
        id: TASK,
        tenant_id: TENANT,
        plugin_name: "fault-probe",
        plan: [{ id: "main", plugin: "fault-probe" }],
        environment: "live",
        marker: "job-1",
        status: "success",
        attempt: 1,
        holds_reservation: false,
        deadline: at(60_000),
        created_at: at(0),
        completed_at: at(2_000),
        tokens_used: 36,
        cost: 200,
        result: "answer 1 to question 1\nanswer 2 to question 2",
        error_code: null,
        error_cause: null,
        routing_method: "explicit",
        warnings: [],
        erased: false,
      },
    ],
    steps: [{ task_id: TASK, step: "main", attempt: 1, status: "success" }],
    events: [
      { task_id: TASK, seq: 1, type: "started", status: null },
      { task_id: TASK, seq: 2, type: "finished", status: "success" },
    ],
    keys: [{ tenant_id: TENANT, key: "job-1", task_id: TASK }],
    calls: [call(1, "req_1"), call(2, "req_2")],
    usage: [{ id: "use-1", task_id: TASK, step: "main", attempt: 1, billable: true, input_tokens: 20, output_tokens: 10, cache_tokens: 6, cost: 200 }],
    periods: [{ tenant_id: TENANT, plugin_name: "fault-probe", environment: "live", month: "2030-01", used: 1, reserved: 0, quota_limit: 5, overage_enabled: false }],
    artifacts: [{ task_id: TASK, name: "a.txt", storage_key: "k/a.txt", size_bytes: 7 }],
    ledger: [asked(1, "req_1"), asked(2, "req_2")],
    objects: new Map([["k/a.txt", 7]]),
    effects: [{ key: TASK, marker: "job-1" }],
    tickets: [],
    pace: { beforeMs: 300, afterMs: 310, recoveredAfterSec: 1 },
    levels: [{ what: "sessions", before: 20, after: 18, limit: 20 }],
    around: {
      heard: [
        { at: 1_000_000, endpoint: "hook", webhook_id: "evt_1", timestamp: 1_000, is_valid: true, type: "task.completed", subject: told, marks: ["job-1"], is_accepted: true },
        { at: 1_060_000, endpoint: "hook", webhook_id: "evt_1", timestamp: 1_060, is_valid: true, type: "task.completed", subject: told, marks: ["job-1"], is_accepted: true },
      ],
      endpoints: [{ id: "hook", tenantId: TENANT, isHealthy: true, since: at(0) }],
      invoices: [],
      lines: [],
      usageDays: [{ tenant_id: TENANT, month: "2030-01", is_invoiced: false, billable: 1, cost: 200 }],
      billable: [{ tenant_id: TENANT, month: "2030-01", billable: 1, cost: 200 }],
      closed: [],
      prompts: [{ call: 1, marks: ["job-1"] }],
      objects: [{ key: `${TENANT}/a.txt`, marks: ["job-1"] }],
      logs: [{ file: "wake.log", marks: [] }],
      erased: [{ who: "somebody", isCertified: true, foundBefore: 3, found: {} }],
      facts: [{ invariant: "D", what: "seen from outside", isSo: true }],
    },
  };
}

/** The same task as a plan of two steps: the second one, of a later attempt, filed two tickets. */
function goodPlan(): Records {
  const records = goodRecords();
  Object.assign(first(records.tasks), {
    attempt: 2,
    plan: [
      { id: "main", plugin: "fault-probe" },
      { id: "file", plugin: "ticket-processor" },
    ],
  });
  records.steps.push({ task_id: TASK, step: "file", attempt: 2, status: "success" });
  records.usage.push({ id: "use-2", task_id: TASK, step: "file", attempt: 2, billable: true, input_tokens: 0, output_tokens: 0, cache_tokens: 0, cost: 0 });
  records.periods.push({ ...first(records.periods), plugin_name: "ticket-processor" });
  records.tickets.push(...[1, 2].map((number) => ({ tenant_id: TENANT, number, fingerprint: `f${number}`, task_id: TASK, marker: "job-1" })));
  return records;
}

function first<T>(rows: readonly T[]): T {
  const [row] = rows;
  if (row === undefined) throw new Error("the good records lack a row");
  return row;
}

/** What the auditor says about the good records after this change, by invariant. */
function broken(change: (records: Records) => void, records = goodRecords()): Invariant[] {
  change(records);
  return audit(records, { leaseMs: 1_000 }).flatMap(({ invariant, violations }) => (violations.length > 0 ? [invariant] : []));
}

describe("the auditor", () => {
  it("finds nothing in a run that went well, and looks at every invariant", () => {
    const findings = audit(goodRecords(), { leaseMs: 1_000 });
    expect(findings.flatMap(({ violations }) => violations)).toEqual([]);
    expect(holds(findings)).toBe(true);
    for (const { checked } of findings) expect(checked).toBeGreaterThan(0);
  });

  it.each<[Invariant, string, (around: Records["around"]) => void]>([
    ["I7", "two invoices for a month", (r) => void r.invoices.push(...[1, 2].map((number) => ({ id: told, tenant_id: OTHER, number, month: "2030-01", total: 0 })))],
    ["I7", "an invoice that is not the sum of its lines", (r) => void r.invoices.push({ id: OTHER, tenant_id: OTHER, number: 1, month: "2030-01", total: 7 })],
    ["I7", "usage that is neither counted nor invoiced", (r) => Object.assign(first(r.usageDays), { cost: 199 })],
    [
      "I7",
      "usage that is invoiced and waits too",
      (r) => void r.lines.push({ invoice_id: OTHER, tenant_id: TENANT, kind: "model_usage", origin: "2030-01", quantity: 1, amount: 200 }),
    ],
    ["I9", "an end that was told to nobody", (r) => void r.heard.splice(0)],
    ["I9", "an end that was told and not taken", (r) => void r.heard.splice(0, 2, { ...first(r.heard), is_accepted: false })],
    ["I9", "a signature that does not hold", (r) => Object.assign(first(r.heard), { is_valid: false })],
    ["I9", "a second attempt under the time of the first", (r) => Object.assign(first(r.heard.slice(1)), { timestamp: 1_000 })],
    ["I9", "a second attempt under another id", (r) => Object.assign(first(r.heard.slice(1)), { webhook_id: "evt_2" })],
    ["I9", "one id for two events", (r) => void r.heard.push({ ...first(r.heard), subject: publicId("task", OTHER) })],
    ["I11", "another tenant's mark in a webhook", (r) => Object.assign(first(r.endpoints), { tenantId: OTHER, isHealthy: false })],
    ["I11", "another tenant's mark in a prompt", (r) => first(r.prompts).marks.push("job-of-another")],
    ["I11", "another tenant's mark in a file", (r) => Object.assign(first(r.objects), { key: `${OTHER}/a.txt` })],
    ["I11", "a mark in a log", (r) => first(r.logs).marks.push("job-1")],
    ["I12", "something left of somebody", (r) => Object.assign(first(r.erased), { found: { messages: 1 } })],
    ["I12", "an erasure without a certificate", (r) => Object.assign(first(r.erased), { isCertified: false })],
    ["I12", "a search that never found anything", (r) => Object.assign(first(r.erased), { foundBefore: 0 })],
    ["D", "something that a scenario saw otherwise", (r) => Object.assign(first(r.facts), { isSo: false })],
  ])("%s: sees around the tasks %s", (invariant, _, change) => {
    expect(broken(({ around }) => change(around))).toContain(invariant);
  });

  it("I11: sees an answer that shows what is another tenant's", () => {
    expect(broken((r) => void r.journal.push({ at: 9, op: "peek", marker: "job-2", outcome: "ok", tenant: OTHER, marks: ["job-1"] }))).toEqual(["I11"]);
  });

  it.each<[Invariant, string, (records: Records) => void]>([
    ["I1", "an accepted task that is not there", (r) => void r.journal.push({ at: 4, op: "submit", marker: "job-1", outcome: "ok", task_id: publicId("task", OTHER) })],
    ["I1", "a task that has not ended", (r) => Object.assign(first(r.tasks), { status: "running", completed_at: null })],
    ["I1", "a task that ended long after its deadline", (r) => Object.assign(first(r.tasks), { completed_at: at(62_001) })],
    ["I2", "two tasks for one key", (r) => void r.tasks.push({ ...first(r.tasks), id: OTHER })],
    ["I2", "a row that a refused submit left", (r) => void r.keys.push({ tenant_id: TENANT, key: "job-refused", task_id: TASK })],
    ["I2", "a task that nobody submitted", (r) => void r.tasks.push({ ...first(r.tasks), id: OTHER, marker: "job-ghost" })],
    ["I3", "a second terminal write", (r) => void r.events.push({ task_id: TASK, seq: 3, type: "finished", status: "success" })],
    ["I3", "an event after the end", (r) => void r.events.push({ task_id: TASK, seq: 3, type: "node_finished", status: null })],
    ["I3", "a step that another attempt wrote", (r) => Object.assign(first(r.steps), { attempt: 2 })],
    ["I3", "usage that another attempt wrote", (r) => Object.assign(first(r.usage), { attempt: 2 })],
    ["I3", "a result made of a call that is not the task's", (r) => Object.assign(first(r.tasks), { result: "answer 9 to question 1" })],
    ["I3", "an artifact without its object", (r) => Object.assign(r, { objects: new Map() })],
    ["I4", "an end that is not the one the caller was told", (r) => void r.journal.push({ at: 4, op: "cancel", marker: "job-1", outcome: "ok", task_id: told, seen: "cancelled" })],
    ["I4", "a task that ran again after its end", (r) => void r.journal.push({ at: 4, op: "read", marker: "job-1", outcome: "ok", task_id: told, seen: "running" })],
    ["I4", "a task that was taken up after its end", (r) => void r.events.push({ task_id: first(r.tasks).id, seq: 9, type: "started", status: null })],
    ["I4", "a cancelled task that is billed", (r) => Object.assign(first(r.tasks), { status: "cancelled" })],
    ["I5", "a billed call that the provider never saw", (r) => Object.assign(first(r.calls), { provider_request_id: "req_invented" })],
    ["I5", "tokens that are not the provider's", (r) => Object.assign(first(r.calls), { cache_read_tokens: 2 })],
    ["I5", "one real call that stands for two", (r) => Object.assign(first(r.calls), { provider_request_id: "req_2" })],
    ["I5", "usage that is not the sum of its calls", (r) => Object.assign(first(r.usage), { output_tokens: 11 })],
    ["I6", "a real call that is in no journal", (r) => void r.ledger.push({ ...first(r.ledger), call: 3, requestId: "req_3" })],
    [
      "I6",
      "an unknown call without a ceiling",
      (r) => void r.calls.push({ ...first(r.calls), id: "call-3", question: "q3/1", state: "unknown", ceiling: 0, provider_request_id: null }),
    ],
    [
      "I6",
      "a call that is open though its task has ended",
      (r) => void r.calls.push({ ...first(r.calls), id: "call-3", question: "q3/1", state: "started", provider_request_id: null }),
    ],
    ["I7", "two usage rows for one step", (r) => void r.usage.push({ ...first(r.usage), id: "use-2", billable: false })],
    ["I7", "one question that was paid twice", (r) => Object.assign(first(r.calls), { question: "q2/1" })],
    ["I7", "a failed task that is billable", (r) => Object.assign(first(r.tasks), { status: "failed" })],
    ["I7", "a month that counts more than succeeded", (r) => Object.assign(first(r.periods), { used: 2 })],
    ["I8", "a reservation that did not return", (r) => Object.assign(first(r.periods), { reserved: 1 })],
    ["I8", "a quota that was exceeded", (r) => Object.assign(first(r.periods), { quota_limit: 0 })],
    ["I8", "an ended task that holds a reservation", (r) => Object.assign(first(r.tasks), { holds_reservation: true })],
    ["I10", "a tool that was reached under two keys", (r) => void r.effects.push({ key: OTHER, marker: "job-1" })],
    ["I10", "a success whose tool was never reached", (r) => Object.assign(r, { effects: [] })],
    ["I13", "tasks that stay slow", (r) => Object.assign(r, { pace: { beforeMs: 300, afterMs: 900, recoveredAfterSec: null } })],
    ["I14", "sessions that grow", (r) => void r.levels.push({ what: "sessions", before: 20, after: 40, limit: 32 })],
    ["D", "an end that the fault does not deserve", (r) => Object.assign(first(r.journal), { deserves: { status: ["failed"] } })],
  ])("reports under %s %s", (invariant, _what, change) => {
    expect(broken(change)).toContain(invariant);
  });

  it("finds nothing in a plan whose steps two attempts wrote", () => {
    expect(audit(goodPlan(), { leaseMs: 1_000 }).flatMap(({ violations }) => violations)).toEqual([]);
  });

  it.each<[Invariant, string, (records: Records) => void]>([
    ["I3", "a step that nobody wrote", (r) => void r.steps.pop()],
    ["I3", "a step of an attempt that there was not", (r) => Object.assign(first(r.steps), { attempt: 3 })],
    ["I3", "usage of another attempt than its step", (r) => Object.assign(first(r.usage), { attempt: 2 })],
    ["I3", "a success with a failed step", (r) => Object.assign(first(r.steps), { status: "failed" })],
    ["I7", "a step that is not billed", (r) => void r.usage.pop()],
    ["I7", "a month of the second plugin that counts nothing", (r) => Object.assign(r.periods[1] ?? {}, { used: 0 })],
    ["I10", "an issue with two tickets", (r) => void r.tickets.push({ ...first(r.tickets), number: 3 })],
    ["I10", "a ticket too few", (r) => void r.tickets.pop()],
    ["I10", "a ticket of another task's issue", (r) => Object.assign(first(r.tickets), { marker: "job-2" })],
  ])("reports of a plan, under %s, %s", (invariant, _what, change) => {
    expect(broken(change, goodPlan())).toContain(invariant);
  });

  it("knows a call whose gateway died before it could write the answer down, when the task lists one", () => {
    const lostAnswer = (r: Records) => {
      r.ledger.push({ ...first(r.ledger), call: 3, requestId: "req_3" });
      r.calls.push({ ...first(r.calls), id: "call-3", question: "q3/1", state: "unknown", provider_request_id: null });
    };
    expect(broken(lostAnswer)).toEqual([]);
  });
});
