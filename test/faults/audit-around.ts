/** The auditor's rules about what stands around a task: webhooks (I9), isolation (I11), erasure (I12), invoices (I7), and what scenarios saw themselves. */
import { publicId } from "../../shared/ids.ts";
import { type Book, groupBy } from "./invariants.ts";
import type { Records, TaskRecord } from "./records.ts";

/** A sender under load may sign a little before it sends. */
const FRESH_SEC = 10;
const TERMINAL = new Set(["success", "partial", "failed", "cancelled"]);

export function aroundTasks(book: Book, records: Records): void {
  everybodyIsTold(book, records);
  nothingCrosses(book, records);
  nothingIsLeft(book, records);
  monthsAreClosedOnce(book, records);
  for (const { invariant, what, isSo } of records.around.facts) book.check(invariant, isSo, () => what);
}

const eventOf = ({ status }: TaskRecord) => (status === "failed" ? "task.failed" : status === "cancelled" ? "task.cancelled" : "task.completed");

function everybodyIsTold(book: Book, { around: { heard, endpoints, invoices }, tasks }: Records): void {
  const told = groupBy(
    heard.filter(({ is_accepted }) => is_accepted),
    ({ endpoint, type, subject }) => `${endpoint} ${type} ${subject}`,
  );
  for (const endpoint of endpoints) {
    if (!endpoint.isHealthy) continue;
    for (const task of tasks) {
      if (task.tenant_id !== endpoint.tenantId || !TERMINAL.has(task.status) || task.erased || (task.completed_at?.getTime() ?? 0) < endpoint.since.getTime()) continue;
      const subject = publicId("task", task.id);
      book.check("I9", told.has(`${endpoint.id} ${eventOf(task)} ${subject}`), () => `${task.marker} ended as ${task.status}, and ${endpoint.id} was never told`);
    }
    for (const { id, tenant_id } of invoices) {
      if (tenant_id !== endpoint.tenantId) continue;
      book.check("I9", told.has(`${endpoint.id} invoice.closed ${publicId("invoice", id)}`), () => `the invoice ${id} was closed, and ${endpoint.id} was never told`);
    }
  }
  const ids = new Map<string, string>();
  for (const { webhook_id, timestamp, at, is_valid, type, subject, endpoint } of heard) {
    const what = `${type} of ${subject}`;
    book.check("I9", is_valid, () => `${what} came to ${endpoint} with a signature that does not hold`);
    book.check("I9", Math.abs(at / 1000 - timestamp) <= FRESH_SEC, () => `${what} came to ${endpoint} with a time that is ${Math.round(at / 1000 - timestamp)} s old`);
    if (subject === null) continue;
    const known = ids.get(what) ?? webhook_id;
    ids.set(what, known);
    book.check("I9", known === webhook_id, () => `${what} came under the ids ${known} and ${webhook_id}`);
  }
  for (const [id, whats] of groupBy([...ids], ([, webhookId]) => webhookId))
    book.check("I9", whats.length === 1, () => `${id} is the id of ${whats.map(([what]) => what).join(" and ")}`);
}

function nothingCrosses(book: Book, { around: { heard, endpoints, prompts, objects, logs }, journal }: Records): void {
  const ownerOf = new Map(journal.flatMap(({ marker, op, tenant }) => (op === "submit" && tenant !== undefined ? [[marker, tenant] as const] : [])));
  const tenantOf = new Map(endpoints.map(({ id, tenantId }) => [id, tenantId]));
  /** A mark whose job nobody submitted belongs to nobody, and so to no reader. */
  const foreign = (marks: readonly string[], reader: string | undefined) => marks.filter((mark) => ownerOf.get(mark) !== reader);
  const check = (marks: readonly string[], reader: string | undefined, where: () => string) => {
    if (marks.length === 0) return;
    const wrong = foreign(marks, reader);
    book.check("I11", wrong.length === 0, () => `${where()} shows ${wrong.join(", ")} of another tenant`);
  };
  for (const { marks = [], tenant, op, marker } of journal) check(marks, tenant, () => `an answer to ${marker} (${op})`);
  for (const { marks, endpoint, type, subject } of heard) check(marks, tenantOf.get(endpoint), () => `what ${endpoint} was told (${type} of ${subject})`);
  for (const { marks, call } of prompts) check(marks, ownerOf.get(marks[0] ?? ""), () => `the prompt of the provider's call ${call}`);
  for (const { marks, key } of objects) check(marks, key.split("/")[0], () => `the object ${key}`);
  for (const { marks, file } of logs) book.check("I11", marks.length === 0, () => `the log ${file} shows ${marks.slice(0, 5).join(", ")}`);
}

function nothingIsLeft(book: Book, { around: { erased } }: Records): void {
  for (const { who, isCertified, found, foundBefore } of erased) {
    book.check("I12", isCertified, () => `the erasure of ${who} has no certificate`);
    book.check("I12", foundBefore > 0, () => `nothing of ${who} was found before either, so the search says nothing`);
    const places = Object.entries(found).filter(([, times]) => times > 0);
    book.check("I12", places.length === 0, () => `of ${who} is left: ${places.map(([place, times]) => `${place} ${times}`).join(", ")}`);
  }
}

function monthsAreClosedOnce(book: Book, { around: { invoices, lines, usageDays, billable, closed } }: Records): void {
  const sum = <T>(rows: readonly T[], of: (row: T) => number) => rows.reduce((total, row) => total + of(row), 0);
  for (const [month, rows] of groupBy(invoices, ({ tenant_id, month }) => `${tenant_id} ${month}`))
    book.check("I7", rows.length === 1, () => `${month} has ${rows.length} invoices`);
  for (const [tenant, rows] of groupBy(invoices, ({ tenant_id }) => tenant_id)) {
    const numbers = rows.map(({ number }) => number).sort((a, b) => a - b);
    book.check(
      "I7",
      numbers.every((number, i) => number === i + 1),
      () => `${tenant} has the invoices ${numbers.join(", ")}`,
    );
  }
  for (const { id, total } of invoices) {
    const own = sum(
      lines.filter(({ invoice_id }) => invoice_id === id),
      ({ amount }) => amount,
    );
    book.check("I7", total === own, () => `the invoice ${id} comes to ${total}, and its lines to ${own}`);
  }
  // What the provider's calls cost stands on an invoice once, with the month that it is from, or waits for the next one.
  const until = new Map(closed.map(({ tenant_id, until: month }) => [tenant_id, month]));
  for (const { tenant_id, month, billable: executions, cost } of billable) {
    const counted = usageDays.filter((day) => day.tenant_id === tenant_id && day.month === month);
    const waiting = counted.filter(({ is_invoiced }) => !is_invoiced);
    const own = lines.filter((line) => line.tenant_id === tenant_id && line.origin === month);
    const invoiced = sum(
      own.filter(({ kind }) => kind === "model_usage"),
      ({ amount }) => amount,
    );
    book.check(
      "I7",
      sum(counted, (day) => day.billable) === executions,
      () => `${tenant_id} ${month}: ${sum(counted, (day) => day.billable)} executions are counted, and ${executions} events are billable`,
    );
    book.check(
      "I7",
      invoiced + sum(waiting, (day) => day.cost) === cost,
      () => `${tenant_id} ${month}: invoices say ${invoiced} and ${sum(waiting, (day) => day.cost)} waits, and the events cost ${cost}`,
    );
    if (month >= (until.get(tenant_id) ?? "")) continue;
    const charged = sum(
      own.filter(({ kind }) => kind === "executions" || kind === "overage"),
      ({ quantity }) => quantity,
    );
    book.check(
      "I7",
      charged + sum(waiting, (day) => day.billable) === executions,
      () => `${tenant_id} ${month}: ${charged} executions are on invoices, and ${executions} events are billable`,
    );
  }
}
