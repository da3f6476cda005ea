/**
 * Holds the records of a run against the invariants and says where they break. It is one list of rules over plain data, and longer than a file
 * should be for that: it asks no part of the platform, so it cannot share a mistake with one. What stands around a task is in audit-around.ts.
 */
import { parseId } from "../../shared/ids.ts";
import { aroundTasks } from "./audit-around.ts";
import { Book, type Finding, groupBy } from "./invariants.ts";
import type { CallRecord, LedgerRecord, Records, TaskRecord } from "./records.ts";

export interface AuditOptions {
  leaseMs: number;
}

/** The plugin of the runs; only it uses the tool outside. */
const PROBE = "fault-probe";
const FILER = "ticket-processor";
/** The issues that the probe hands to it. */
const TICKETS_PER_TASK = 2;
const TERMINAL = new Set(["success", "partial", "failed", "cancelled"]);
const SUCCEEDED = new Set(["success", "partial"]);

export function audit(records: Records, { leaseMs }: AuditOptions): Finding[] {
  const book = new Book();
  const view = indexed(records);
  // Of the erased only what they cost is still there; what they said can be compared with nothing.
  const living = withoutErased(records);
  const livingView = indexed(living);
  noLoss(book, records, view, leaseMs);
  noGhosts(book, living, livingView);
  oneSettlement(book, living, livingView);
  noRevival(book, living, livingView);
  billedIsReal(book, living, livingView);
  realIsKnown(book, living, livingView);
  noDoubleBill(book, records, view);
  reservationsReturn(book, records);
  sideEffects(book, living, livingView);
  liveness(book, records);
  noLeak(book, records);
  deserved(book, living, livingView);
  aroundTasks(book, records);
  return book.findings();
}

function withoutErased(records: Records): Records {
  const gone = new Set(records.tasks.flatMap((task) => (task.erased ? [task.id] : [])));
  if (gone.size === 0) return records;
  const markers = new Set(records.journal.flatMap(({ marker, task_id }) => (gone.has(uuidOf(task_id)) ? [marker] : [])));
  const ofLiving = <T extends { task_id: string }>(rows: T[]) => rows.filter(({ task_id }) => !gone.has(task_id));
  return {
    ...records,
    tasks: records.tasks.filter(({ id }) => !gone.has(id)),
    journal: records.journal.filter(({ marker }) => !markers.has(marker)),
    ledger: records.ledger.filter(({ marker }) => !markers.has(marker)),
    effects: records.effects.filter(({ marker }) => !markers.has(marker)),
    steps: ofLiving(records.steps),
    events: ofLiving(records.events),
    keys: ofLiving(records.keys),
    calls: ofLiving(records.calls),
    usage: ofLiving(records.usage),
    artifacts: ofLiving(records.artifacts),
    tickets: ofLiving(records.tickets),
  };
}

function indexed(records: Records) {
  return {
    task: new Map(records.tasks.map((task) => [task.id, task])),
    byMarker: groupBy(records.tasks, (task) => task.marker ?? ""),
    journal: groupBy(records.journal, (entry) => entry.marker),
    calls: groupBy(records.calls, (call) => call.task_id),
    steps: groupBy(records.steps, (step) => step.task_id),
    events: groupBy(records.events, (event) => event.task_id),
    ledger: new Map(records.ledger.map((entry) => [entry.requestId, entry])),
  };
}
type View = ReturnType<typeof indexed>;

const name = (task: TaskRecord) => `${task.id} (${task.marker ?? "no marker"}, ${task.status})`;
/** The steps of a plan that one plugin has. */
const stepsOf = (task: TaskRecord, plugin: string) => task.plan.filter((step) => step.plugin === plugin).map(({ id }) => id);
const sum = <T>(rows: readonly T[], of: (row: T) => number) => rows.reduce((total, row) => total + of(row), 0);
const uuidOf = (publicTaskId: string | undefined) => parseId("task", publicTaskId ?? "") ?? "";

function noLoss(book: Book, { journal, tasks }: Records, { task }: View, leaseMs: number): void {
  for (const entry of journal) {
    if (entry.op !== "submit" || entry.outcome !== "ok") continue;
    const found = task.get(uuidOf(entry.task_id));
    book.check("I1", found !== undefined, () => `${entry.marker}: the caller was told ${entry.task_id}, and there is no such task`);
  }
  for (const row of tasks) {
    book.check("I1", TERMINAL.has(row.status), () => `${name(row)} has not ended`);
    if (row.completed_at === null) continue;
    const lateMs = row.completed_at.getTime() - row.deadline.getTime();
    book.check("I1", lateMs <= 2 * leaseMs, () => `${name(row)} ended ${lateMs} ms after its deadline`);
  }
}

function noGhosts(book: Book, { journal, tasks, keys }: Records, { byMarker, journal: byJob }: View): void {
  for (const [marker, entries] of groupBy(
    journal.filter(({ op }) => op === "submit"),
    (entry) => entry.marker,
  )) {
    const rows = byMarker.get(marker) ?? [];
    const told = new Set(entries.filter(({ outcome }) => outcome === "ok").map(({ task_id }) => task_id));
    book.check("I2", rows.length <= 1, () => `${marker}: ${rows.length} tasks for one key: ${rows.map(name).join(", ")}`);
    book.check("I2", told.size <= 1, () => `${marker}: the caller was told of ${[...told].join(" and ")}`);
    const isRefused = told.size === 0 && entries.some(({ outcome }) => outcome === "fail");
    const left = rows.length + keys.filter(({ key }) => key === marker).length;
    book.check("I2", !isRefused || left === 0, () => `${marker}: refused, and ${left} rows are there`);
  }
  for (const row of tasks) book.check("I2", byJob.has(row.marker ?? ""), () => `${name(row)} was never submitted`);
  for (const { key, task_id } of keys) {
    const row = (byMarker.get(key) ?? []).find(({ id }) => id === task_id);
    book.check("I2", row !== undefined, () => `the key ${key} names the task ${task_id}, which is not its task`);
  }
}

function oneSettlement(book: Book, records: Records, { task, events, calls, steps, ledger }: View): void {
  for (const row of records.tasks) {
    const own = events.get(row.id) ?? [];
    const ends = own.filter(({ type }) => type === "finished");
    book.check(
      "I3",
      ends.length === (TERMINAL.has(row.status) ? 1 : 0),
      () => `${name(row)} has ${ends.length} terminal writes: ${ends.map(({ seq, status }) => `${seq} ${status}`).join(", ")}`,
    );
    const last = own.at(-1);
    book.check(
      "I3",
      !TERMINAL.has(row.status) || (last?.type === "finished" && last.status === row.status),
      () => `${name(row)}: its last event is ${last?.seq} ${last?.type} ${last?.status ?? ""}`,
    );
    if (!SUCCEEDED.has(row.status)) continue;
    const written = steps.get(row.id) ?? [];
    const isWhole = row.plan.every(({ id }) => written.some(({ step }) => step === id)) && written.length === row.plan.length;
    const isSame = row.plan.length > 1 ? row.status === "partial" || written.every(({ status }) => status === "success") : written[0]?.status === row.status;
    book.check("I3", isWhole && isSame, () => `${name(row)} has the steps ${written.map(({ step, status }) => `${step} ${status}`).join(", ") || "none"} of ${row.plan.length}`);
    if (stepsOf(row, PROBE).length === 0) continue;
    // The result names the provider's calls that it was made of: they must be this task's, and journalled as done.
    const done = (calls.get(row.id) ?? []).filter(({ state }) => state === "done").map(({ provider_request_id }) => ledger.get(provider_request_id ?? "")?.call);
    const named = [...(row.result ?? "").matchAll(/answer (\d+) to question/g)].map(([, call]) => Number(call));
    book.check(
      "I3",
      named.length > 0 && named.every((call) => done.includes(call)),
      () => `${name(row)}: its result is made of the calls ${named.join(", ")}, and done are ${done.join(", ")}`,
    );
  }
  for (const step of records.steps) {
    const row = task.get(step.task_id);
    // The steps of a plan are written as they end; a later attempt finds them, and the last one ends the task.
    const isOwn = row && (row.plan.length > 1 ? step.attempt <= row.attempt : step.attempt === row.attempt);
    book.check("I3", isOwn === true, () => `${row ? name(row) : step.task_id}: step ${step.step} was written by attempt ${step.attempt}, and the task is at ${row?.attempt}`);
  }
  for (const row of records.usage) {
    const owner = task.get(row.task_id);
    const writer = (steps.get(row.task_id) ?? []).find(({ step }) => step === row.step)?.attempt ?? owner?.attempt;
    book.check("I3", writer === row.attempt, () => `${owner ? name(owner) : row.task_id}: usage was written by attempt ${row.attempt}, and its step by ${writer}`);
  }
  for (const artifact of records.artifacts) {
    book.check(
      "I3",
      records.objects.get(artifact.storage_key) === artifact.size_bytes,
      () =>
        `${artifact.task_id}: the artifact ${artifact.name} has ${artifact.size_bytes} bytes in its row and ${records.objects.get(artifact.storage_key) ?? "no object"} in the store`,
    );
  }
}

function noRevival(book: Book, { journal, tasks, usage }: Records, { task, events, calls, ledger }: View): void {
  for (const row of tasks) {
    const own = events.get(row.id) ?? [];
    const end = own.findIndex(({ type }) => type === "finished");
    const after = end < 0 ? [] : own.slice(end + 1);
    book.check("I4", after.length === 0, () => `${name(row)} had ended, and then there were ${after.map(({ seq, type }) => `${seq} ${type}`).join(", ")}`);
  }
  for (const [taskId, entries] of groupBy(
    journal.filter(({ task_id, seen }) => task_id !== undefined && seen !== undefined),
    (entry) => uuidOf(entry.task_id),
  )) {
    const row = task.get(taskId);
    const ended = entries.filter(({ seen }) => TERMINAL.has(seen ?? ""));
    for (const { seen, op } of ended) book.check("I4", row?.status === seen, () => `${row ? name(row) : taskId}: the caller was told ${seen} (${op})`);
    const first = ended.find(({ op }) => op === "read")?.at ?? Number.POSITIVE_INFINITY;
    const back = entries.find(({ at, op, seen }) => op === "read" && at > first && !TERMINAL.has(seen ?? ""));
    book.check("I4", back === undefined, () => `${row ? name(row) : taskId}: it had ended, and then the caller read ${back?.seen}`);
  }
  for (const row of tasks) {
    if (row.status !== "cancelled") continue;
    book.check(
      "I4",
      usage.every(({ task_id, billable }) => task_id !== row.id || !billable),
      () => `${name(row)} is billed`,
    );
    const real = sum(calls.get(row.id) ?? [], (call) => tokensOf(ledger.get(call.provider_request_id ?? "")));
    book.check("I4", row.tokens_used <= real, () => `${name(row)} counts ${row.tokens_used} tokens, and the provider returned ${real}`);
  }
}

function tokensOf(entry: LedgerRecord | undefined): number {
  const usage = entry?.usage;
  return usage ? usage.input_tokens + usage.output_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens : 0;
}

function billedIsReal(book: Book, { usage, calls }: Records, { task, ledger, calls: callsOf }: View): void {
  const billed = new Map<string, string>();
  for (const call of calls) {
    if (call.state !== "done") continue;
    const real = ledger.get(call.provider_request_id ?? "");
    // A provider that counts nothing leaves an estimate, which has to say that it is one.
    const isUncounted = real?.usage === null && call.is_estimated;
    const isSame =
      isUncounted ||
      (real?.usage?.input_tokens === call.input_tokens &&
        real.usage.output_tokens === call.output_tokens &&
        real.usage.cache_creation_input_tokens === call.cache_write_tokens &&
        real.usage.cache_read_input_tokens === call.cache_read_tokens);
    book.check(
      "I5",
      real?.completed === true && isSame,
      () => `call ${call.id} of ${call.task_id} is done as ${call.provider_request_id}, and the provider has ${JSON.stringify(real ?? null)}`,
    );
    const owner = task.get(call.task_id);
    book.check("I5", real?.marker === owner?.marker, () => `call ${call.id} belongs to ${owner ? name(owner) : "nobody"}, and the provider was asked for ${real?.marker}`);
    const other = billed.get(call.provider_request_id ?? "");
    book.check("I5", other === undefined, () => `the provider's call ${call.provider_request_id} stands for ${other} and for ${call.id}`);
    billed.set(call.provider_request_id ?? "", call.id);
  }
  for (const row of usage) {
    const done = (callsOf.get(row.task_id) ?? []).filter(({ step, state }) => step === row.step && state === "done");
    const cache = (call: CallRecord) => call.cache_write_tokens + call.cache_read_tokens;
    const isSame =
      row.input_tokens === sum(done, (c) => c.input_tokens) &&
      row.output_tokens === sum(done, (c) => c.output_tokens) &&
      row.cache_tokens === sum(done, cache) &&
      row.cost === sum(done, (c) => c.cost);
    book.check("I5", isSame, () => `usage ${row.id} of ${row.task_id} is not the sum of its ${done.length} calls`);
  }
}

/** A call whose answer nobody could write down has no request id; it is known when its task lists as many such calls. */
function realIsKnown(book: Book, { ledger, calls, tasks }: Records, { byMarker, calls: callsOf }: View): void {
  const settled = new Set(calls.map(({ provider_request_id }) => provider_request_id));
  const listed = (call: CallRecord) => call.provider_request_id === null && (call.state === "unknown" || call.state === "failed");
  for (const [marker, asked] of groupBy(ledger, (entry) => entry.marker)) {
    const open = asked.filter(({ requestId }) => !settled.has(requestId));
    const rows = (byMarker.get(marker) ?? []).flatMap(({ id }) => callsOf.get(id) ?? []).filter(listed);
    for (const [index, entry] of open.entries()) book.check("I6", index < rows.length, () => `the provider's call ${entry.requestId} for ${marker || "nobody"} is in no journal`);
    for (const _ of asked.slice(open.length)) book.check("I6", true, () => "");
  }
  for (const call of calls) {
    if (call.state === "unknown") book.check("I6", call.ceiling > 0, () => `the unknown call ${call.id} has no ceiling to be booked at`);
  }
  for (const row of tasks) {
    const open = (callsOf.get(row.id) ?? []).filter(({ state }) => state === "started");
    book.check("I6", !TERMINAL.has(row.status) || open.length === 0, () => `${name(row)} has ${open.length} open calls`);
  }
}

function noDoubleBill(book: Book, { usage, calls, periods, tasks }: Records, { calls: callsOf, steps }: View): void {
  for (const [step, rows] of groupBy(usage, (row) => `${row.task_id} ${row.step}`)) book.check("I7", rows.length === 1, () => `${step} has ${rows.length} usage rows`);
  for (const [question, rows] of groupBy(
    calls.filter(({ state }) => state === "done"),
    (call) => `${call.task_id} ${call.step} ${call.question}`,
  )) {
    book.check("I7", rows.length === 1, () => `${question} was paid ${rows.length} times: ${rows.map(({ provider_request_id }) => provider_request_id).join(", ")}`);
  }
  /** Steps of a plugin that succeeded, in tasks that did. */
  const succeeded = (row: TaskRecord, ids: readonly string[]) =>
    SUCCEEDED.has(row.status) ? (steps.get(row.id) ?? []).filter(({ step, status }) => ids.includes(step) && SUCCEEDED.has(status)).length : 0;
  for (const row of tasks) {
    const done = (callsOf.get(row.id) ?? []).filter(({ state }) => state === "done");
    book.check("I7", row.cost === sum(done, (call) => call.cost), () => `${name(row)} costs ${row.cost}, and its calls ${sum(done, (call) => call.cost)}`);
    const billed = usage.filter(({ task_id, billable }) => task_id === row.id && billable);
    const due =
      row.environment === "live"
        ? succeeded(
            row,
            row.plan.map(({ id }) => id),
          )
        : 0;
    book.check("I7", billed.length === due, () => `${name(row)} has ${billed.length} billable rows, and ${due} of its steps succeeded`);
  }
  for (const period of periods) {
    const own = tasks.filter(
      (row) =>
        row.tenant_id === period.tenant_id &&
        stepsOf(row, period.plugin_name).length > 0 &&
        row.environment === period.environment &&
        row.created_at.toISOString().startsWith(period.month),
    );
    const used = sum(own, (row) => succeeded(row, stepsOf(row, period.plugin_name)));
    book.check("I7", period.used === used, () => `${period.tenant_id} ${period.plugin_name} ${period.month}: ${period.used} executions are counted, and ${used} succeeded`);
  }
}

function reservationsReturn(book: Book, { periods, tasks }: Records): void {
  for (const period of periods) {
    book.check("I8", period.reserved === 0, () => `${period.tenant_id} ${period.month}: ${period.reserved} are still reserved`);
    const isWithin = period.quota_limit === null || period.overage_enabled === true || period.used <= period.quota_limit;
    book.check("I8", isWithin, () => `${period.tenant_id} ${period.month}: ${period.used} used of ${period.quota_limit}`);
  }
  for (const row of tasks) book.check("I8", !TERMINAL.has(row.status) || !row.holds_reservation, () => `${name(row)} has ended and holds a reservation`);
}

function sideEffects(book: Book, { effects, tasks, tickets }: Records, { byMarker, steps, task }: View): void {
  const keys = groupBy(effects, ({ marker }) => marker);
  for (const [marker, reached] of keys) {
    const distinct = new Set(reached.map(({ key }) => key));
    book.check("I10", distinct.size === 1, () => `${marker} reached the tool under ${distinct.size} keys: ${[...distinct].join(", ")}`);
    book.check("I10", byMarker.has(marker), () => `the tool was reached for ${marker}, which has no task`);
  }
  const filed = groupBy(tickets, ({ task_id }) => task_id);
  for (const row of tasks) {
    const did = (plugin: string) => (steps.get(row.id) ?? []).some(({ step, status }) => SUCCEEDED.has(status) && stepsOf(row, plugin).includes(step));
    if (did(PROBE)) book.check("I10", keys.has(row.marker ?? ""), () => `${name(row)}: the probe has succeeded, and the tool was never reached`);
    if (did(FILER))
      book.check("I10", filed.get(row.id)?.length === TICKETS_PER_TASK, () => `${name(row)} filed ${TICKETS_PER_TASK} issues and has ${filed.get(row.id)?.length} tickets`);
  }
  for (const [issue, rows] of groupBy(tickets, ({ tenant_id, fingerprint }) => `${tenant_id} ${fingerprint}`))
    book.check("I10", rows.length === 1, () => `the issue ${issue} of ${rows[0]?.marker} has the tickets ${rows.map(({ number }) => number).join(", ")}`);
  for (const ticket of tickets)
    book.check("I10", task.get(ticket.task_id)?.marker === ticket.marker, () => `ticket ${ticket.number} is about ${ticket.marker}, and was filed by ${ticket.task_id}`);
}

function liveness(book: Book, { pace }: Records): void {
  if (!pace) return;
  book.check(
    "I13",
    pace.recoveredAfterSec !== null,
    () => `the slowest tasks (95th percentile) took ${Math.round(pace.beforeMs)} ms before the faults and ${Math.round(pace.afterMs)} ms a minute after the last of them`,
  );
}

function noLeak(book: Book, { levels }: Records): void {
  for (const { what, before, after, limit } of levels) book.check("I14", after <= limit, () => `${what}: ${before} before the faults, ${after} after, allowed are ${limit}`);
}

function deserved(book: Book, { journal }: Records, { byMarker }: View): void {
  const refused = new Map(journal.flatMap(({ op, outcome, marker, status }) => (op === "submit" && outcome === "fail" && status === 404 ? [[marker, status] as const] : [])));
  for (const { op, marker, deserves, outcome } of journal) {
    if (deserves === undefined || outcome !== "invoke") continue;
    // A plugin that the platform does not know shows nothing of what its task was sent for.
    if (op === "submit" && !byMarker.has(marker) && refused.has(marker))
      book.check("D", false, () => `${marker} was refused with ${refused.get(marker)}, and deserves ${JSON.stringify(deserves)}`);
    for (const row of byMarker.get(marker) ?? []) {
      const isSo =
        deserves.status.includes(row.status) &&
        (deserves.code === undefined || row.error_code === null || deserves.code.includes(row.error_code)) &&
        (deserves.cause === undefined || row.error_cause === null || deserves.cause.includes(row.error_cause)) &&
        (deserves.method === undefined || deserves.method.includes(row.routing_method)) &&
        (deserves.warning === undefined || row.warnings.includes(deserves.warning));
      const is = [row.error_code, row.error_cause, row.routing_method, ...row.warnings].filter(Boolean).join(", ");
      book.check("D", isSo, () => `${name(row)} (${is}) deserves ${JSON.stringify(deserves)}`);
    }
  }
}
