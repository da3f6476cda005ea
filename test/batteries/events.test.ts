import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { conversationIdOf } from "../../shared/conversations/conversation-id.ts";
import { newId, publicId } from "../../shared/ids.ts";
import { appendMany } from "../conversations/exchange.ts";
import { newUser } from "../privacy/people.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { byName, EVENTS, randomIdLike } from "./declared.ts";
import { expectNothingWritten, rowCounts } from "./row-counts.ts";

let platform: TestPlatform;
let own: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false, env: { AAU_ALLOW_PRIVATE_WEBHOOKS: "true" } });
  own = await platform.tenant();
});
afterAll(() => platform?.stop());

/** Makes something for the event to be about, and gives the event's data; a new event function needs a line here. */
const SUBJECTS: Record<string, () => Promise<Record<string, unknown>>> = {
  "io.aau.task.queued": async () => ({ task_id: (await own.api("POST", "/v1/tasks", { command: "once", plugin: "echo" })).body.task_id }),
  "io.aau.conversation.overflowed": async () => {
    const name = randomUUID();
    await appendMany(platform.db, { tenantId: own.tenantId, userId: own.userId, name }, 1, 11);
    return { conversation_id: publicId("conversation", conversationIdOf(own.tenantId, own.userId, name)) };
  },
  "io.aau.erasure.requested": async () => {
    const user_id = publicId("user", await newUser(platform.db, own.tenantId));
    return { erasure_id: (await own.api("POST", "/v1/gdpr/erasure-request", { user_id })).body.erasure_id };
  },
  "io.aau.document.added": async () => ({ document_id: (await own.api("POST", "/v1/knowledge", { content: `Passage ${randomUUID()}` })).body.document_id }),
  "io.aau.webhook.due": async () => {
    const { webhook_id } = (await own.api("POST", "/v1/webhooks", { url: "http://127.0.0.1:9/", events: ["quota.warning"] })).body;
    await platform.db.call("SELECT enqueue_webhook_event($1, 'quota.warning', $2, '{}')", [own.tenantId, randomUUID()]);
    return { webhook_id };
  },
};

function deliver(name: string, headers: Record<string, string>, body: string): Promise<Response> {
  return fetch(`${platform.internalUrl}/functions/${name}`, { method: "POST", headers: { authorization: `Bearer ${platform.serviceToken}`, ...headers }, body });
}

const attributes = (type: string) => ({
  "ce-specversion": "1.0",
  "ce-id": randomUUID(),
  "ce-source": "/aau/bridge",
  "ce-type": type,
  "ce-subject": "x",
  "content-type": "application/json",
});

describe.each(byName(EVENTS))("%s", (_, fn) => {
  it("does its work once, however often and however fast the event comes", async () => {
    const subject = SUBJECTS[fn.event];
    if (!subject) throw new Error(`SUBJECTS has no line for ${fn.event}`);
    const [data, other] = [JSON.stringify(await subject()), JSON.stringify(await subject())];
    const first = await deliver(fn.name, attributes(fn.event), data);
    expect(first.status).toBe(204);
    const after = await rowCounts(platform.env.DATABASE_URL ?? "");
    const headers = attributes(fn.event);
    for (let i = 0; i < 3; i++) expect((await deliver(fn.name, headers, data)).status).toBe(204);
    expect(await rowCounts(platform.env.DATABASE_URL ?? "")).toEqual(after);

    const before = await rowCounts(platform.env.DATABASE_URL ?? "");
    const burst = await Promise.all(Array.from({ length: 10 }, () => deliver(fn.name, attributes(fn.event), other)));
    expect(burst.map((answer) => answer.status)).toEqual(Array(10).fill(204));
    const grown = await rowCounts(platform.env.DATABASE_URL ?? "");
    // Ten at once write what one writes: the same steps, events and bills as the first subject left.
    for (const table of Object.keys(grown)) expect((grown[table] ?? 0) - (before[table] ?? 0), table).toBeLessThanOrEqual(table === "task_events" ? 10 : 1);
  });

  it("refuses an event that it can never work on with 4xx, so that nobody delivers it again", async () => {
    const good = attributes(fn.event);
    const without = (name: string) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));
    const poison: [string, Record<string, string>, string][] = [
      ["no data", good, ""],
      ["not JSON", good, "{"],
      ["null", good, "null"],
      ["a list", good, "[]"],
      ["text", good, '"x"'],
      ["nothing in it", good, "{}"],
      ["deep nesting", good, `${"[".repeat(5_000)}${"]".repeat(5_000)}`],
      ["wrong types", good, JSON.stringify({ task_id: 1, id: [] })],
      ["ids that are none", good, JSON.stringify({ task_id: "task_x", document_id: "", delivery_id: "\u0000" })],
      ["another tenant's kind of id", good, JSON.stringify({ task_id: publicId("key", newId("key")) })],
      ["too much", good, JSON.stringify({ task_id: "x".repeat(20_000) })],
      ["another type", { ...good, "ce-type": "io.aau.other" }, "{}"],
      ["another version", { ...good, "ce-specversion": "2.0" }, "{}"],
      ["no id", without("ce-id"), "{}"],
      ["no type", without("ce-type"), "{}"],
      ["no source", without("ce-source"), "{}"],
      ["a batch", { "content-type": "application/cloudevents-batch+json" }, "[]"],
      ["a structured event without attributes", { "content-type": "application/cloudevents+json" }, "{}"],
      ["no attributes at all", { "content-type": "application/json" }, "{}"],
    ];
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const [what, headers, body] of poison) {
        const answer = await deliver(fn.name, headers, body);
        const text = await answer.text();
        expect([413, 422], `${what}: ${answer.status} ${text}`).toContain(answer.status);
        expect(JSON.parse(text).error.retryable, what).toBe(false);
      }
    });
  });

  it("acknowledges an event about something that is not there", async () => {
    const subject = await SUBJECTS[fn.event]?.();
    const data = JSON.stringify(Object.fromEntries(Object.entries(subject ?? {}).map(([name, id]) => [name, randomIdLike(String(id).split("_")[0] ?? "")])));
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      expect((await deliver(fn.name, attributes(fn.event), data)).status).toBe(204);
      // The same as one JSON object, which CloudEvents allows as well.
      const whole = { specversion: "1.0", id: newId("call"), source: "/test", type: fn.event, datacontenttype: "application/json", data: JSON.parse(data) };
      expect((await deliver(fn.name, { "content-type": "application/cloudevents+json" }, JSON.stringify(whole))).status).toBe(204);
    });
  });
});
