/**
 * `npm run erasure:verify`: plants a mark of its own in everything that a person may leave, runs real tasks on a whole platform, erases the person, and
 * searches all of PostgreSQL, Redis, the object store and the log. Prints where each mark stood before and after.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import ticketProcessor from "../../functions/plugins/ticket-processor/ticket-processor.ts";
import { newId, parseId, publicId, type UserId } from "../../shared/ids.ts";
import { STORAGE_PREFIXES, TABLES } from "../../shared/privacy/personal-data.ts";
import { filer, keeper, waiter } from "../batteries/plugins.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";
import { keepWaiting } from "../support/waiting-artifact.ts";
import { finishErasure } from "./erasing.ts";
import { newUser } from "./people.ts";
import { type Found, searchEverywhere, storeOf } from "./places.ts";

let platform: TestPlatform;
let tenant: TestTenant;
const lines: string[] = [];

beforeAll(async () => {
  // With these thresholds whatever names no plugin is a question.
  platform = await startTestPlatform({
    plugins: [echo, filer, asker, keeper, waiter, ticketProcessor],
    onLogLine: (line) => lines.push(line),
    env: { CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0" },
  });
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

/** One word that stands nowhere else, for each thing that somebody leaves. */
function marksOf(who: string) {
  const mark = (what: string) => `${who}${what}${Math.random().toString(36).slice(2, 10)}`;
  const names = [
    "email",
    "keynote",
    "command",
    "attachment",
    "filename",
    "conversation",
    "idempotency",
    "request",
    "artifact",
    "waiting",
    "answer",
    "ticket",
    "assignee",
    "step",
    "question",
    "running",
  ] as const;
  return Object.fromEntries(names.map((name) => [name, mark(name)])) as Record<(typeof names)[number], string>;
}
type Marks = ReturnType<typeof marksOf>;

interface Person {
  userId: UserId;
  key: string;
  marks: Marks;
}

async function live(who: string, ticketOfOthers: string): Promise<Person> {
  const marks = marksOf(who);
  const userId = await newUser(platform.db, tenant.tenantId, `${marks.email}@people.example`);
  const { key } = await tenant.mintKey({ userId, description: marks.keynote, scopes: ["tasks:read", "tasks:write"] });
  const submit = (body: object, headers: Record<string, string> = {}) => platform.call("POST", "/v1/tasks", { key, body, headers: { prefer: "wait=20", ...headers } });
  const attachments = [{ name: `${marks.filename}.txt`, media_type: "text/plain", content: `All about ${marks.attachment}.` }];
  await submit(
    { command: `Say ${marks.command}`, plugin: "echo", attachments, conversation_id: marks.conversation },
    { "idempotency-key": marks.idempotency, "x-request-id": `req-${marks.request}` },
  );
  await submit({ command: `What of ${marks.answer}?`, plugin: "asker", conversation_id: marks.conversation });
  await submit({ command: `Keep ${marks.artifact}`, plugin: "filer" });
  const waits = await submit({ command: `Keep ${marks.waiting}`, plugin: "filer" });
  await keepWaiting(platform.db, parseId("task", waits.body.task_id) ?? "");
  await platform.db.call("UPDATE artifact_uploads SET bytes = convert_to($2, 'UTF8') WHERE task_id = $1", [parseId("task", waits.body.task_id), marks.waiting]);
  await submit({ command: `Create a ticket: the login page shows ${marks.ticket} to everybody`, plugin: "ticket-processor" });
  await submit({ command: `Assign ${ticketOfOthers} to ${marks.assignee}`, plugin: "ticket-processor" });
  await submit({
    command: "do both",
    plan: [
      { id: "one", plugin: "echo", command: `first ${marks.step}` },
      { id: "two", plugin: "echo", needs: ["one"], command: "second" },
    ],
  });
  await submit({ command: `Perhaps ${marks.question}` }, { prefer: "wait=0" });
  await submit({ command: `Wait for ${marks.running}`, plugin: "waiter" }, { prefer: "wait=0" });
  return { userId, key, marks };
}

const total = (found: Found): number => Object.values(found).reduce((sum, count) => sum + count, 0);
const told = (found: Found): string =>
  total(found) === 0
    ? "–"
    : Object.entries(found)
        .map(([place, count]) => `${place} ${count}`)
        .join(", ");

async function searchAll(marks: Record<string, string>): Promise<Record<string, Found>> {
  const found: Record<string, Found> = {};
  for (const [what, mark] of Object.entries(marks)) found[what] = await searchEverywhere(platform, lines, mark);
  return found;
}

describe("an erasure, looked at from outside", () => {
  it("leaves nothing of the person anywhere, and all of everybody else", async () => {
    const organisation = { knowledge: `orgknows${newId("task").slice(-8)}`, config: `orgsets${newId("task").slice(-8)}`, secret: `orghides${newId("task").slice(-8)}` };
    await tenant.api("POST", "/v1/knowledge", { content: `# Handbook\n\nEverybody knows ${organisation.knowledge}.` });
    await tenant.api("PUT", "/v1/plugins/echo/config", { config: { note: organisation.config } });
    await tenant.api("PUT", "/v1/plugins/keeper/secrets/token", { value: organisation.secret });
    for (const [id, issue] of Object.entries({ "T-1": "the printer is out of paper", "T-2": "nobody can open the door of the archive" })) {
      const filed = await tenant.api("POST", "/v1/tasks", { command: `Create a ticket: ${issue}`, plugin: "ticket-processor" }, { prefer: "wait=20" });
      expect(filed.body.result).toContain(id);
    }
    const person = await live("mine", "T-1");
    const other = await live("other", "T-2");
    const identity = { id: person.userId, "public id": publicId("user", person.userId), key: person.key };

    const before = { ...(await searchAll(person.marks)), ...(await searchAll(identity)) };
    const othersBefore = await searchAll(other.marks);
    for (const mark of [person.marks.assignee, other.marks.assignee]) expect(await searchEverywhere(platform, [], mark)).toMatchObject({ tickets: 1, ticket_events: 1 });
    for (const [what, found] of Object.entries(before)) if (what !== "key" && what !== "public id") expect(total(found), `${what} stands somewhere before`).toBeGreaterThan(0);

    const asked = await platform.call("POST", "/v1/gdpr/erasure-request", { key: person.key, body: { user_id: publicId("user", person.userId) } });
    expect(asked.status).toBe(202);
    const counts = await finishErasure(platform, parseId("erasure", asked.body.erasure_id) ?? newId("erasure"));

    const after = { ...(await searchAll(person.marks)), ...(await searchAll(identity)) };
    const ofOrganisation = await searchAll(organisation);
    const table = Object.keys(before).map((what) => [what, told(before[what] ?? {}), told(after[what] ?? {})]);
    for (const [what, found] of Object.entries(ofOrganisation)) table.push([`the organisation's ${what}`, told(found), "stays"]);
    const width = Math.max(...table.map(([what]) => what?.length ?? 0));
    console.log(["", ...table.map(([what = "", was, is]) => `${what.padEnd(width)}  after: ${is}   before: ${was}`), "", `erased: ${told(counts)}`, ""].join("\n"));

    // The log of what was done names the user by an id that leads nowhere now; and lines of the log are found by the id that the caller gave a request.
    const { audit_log: _, ...ids } = after["public id"] ?? {};
    const { logs: _lines, ...requests } = after.request ?? {};
    expect({ ...after, "public id": ids, request: requests }).toEqual(Object.fromEntries(Object.keys(after).map((what) => [what, {}])));
    expect(await searchAll(other.marks)).toEqual(othersBefore);
    expect((await platform.call("GET", "/v1/tasks", { key: other.key })).status).toBe(200);

    const declared = Object.entries(TABLES).flatMap(([name, { organisation: columns }]) => (columns ? [name] : []));
    for (const [what, found] of Object.entries(ofOrganisation))
      expect(
        Object.keys(found).filter((place) => !declared.includes(place)),
        `the organisation's ${what} stands where it should not`,
      ).toEqual([]);
    expect(ofOrganisation.secret).toEqual({});
    expect(total(ofOrganisation.knowledge ?? {})).toBeGreaterThan(0);
  }, 180_000);

  it("met only objects of the list's prefixes", async () => {
    const store = storeOf(platform);
    const keys = (await store.list("", null)).map(({ key }) => key);
    store.close();
    expect(keys.filter((key) => !STORAGE_PREFIXES.some(({ pattern }) => pattern.test(key)))).toEqual([]);
    for (const { name, pattern } of STORAGE_PREFIXES)
      expect(
        keys.some((key) => pattern.test(key)),
        name,
      ).toBe(true);
  });
});

it("looks into every kind of column", async () => {
  const client = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await client.connect();
  await client.query("CREATE TABLE probe (t text, j jsonb, b bytea, a text[])");
  try {
    const values: [string, unknown][] = [
      ["t", "Needle1"],
      ["j", JSON.stringify({ x: ["needle1"] })],
      ["b", Buffer.from("needle1")],
      ["a", ["needle1"]],
    ];
    for (const [column, value] of values) {
      await client.query(`INSERT INTO probe (${column}) VALUES ($1)`, [value]);
      expect(await searchEverywhere(platform, [], "needle1"), column).toEqual({ probe: 1 });
      await client.query("TRUNCATE probe");
    }
  } finally {
    await client.query("DROP TABLE probe");
    await client.end();
  }
});
