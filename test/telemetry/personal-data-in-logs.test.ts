/** Marks in everything that people write are driven through the platform, also through its errors, and no log line and no metric may hold one. */
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import ticketProcessor from "../../functions/plugins/ticket-processor/ticket-processor.ts";
import { publicId } from "../../shared/ids.ts";
import { definePlugin, node } from "../../shared/sdk/src/index.ts";
import { filer, keeper } from "../batteries/plugins.ts";
import { EVIL, evilManifest, startEvil } from "../evil/kinds.ts";
import { newUser } from "../privacy/people.ts";
import { forgetCircuits } from "../support/circuits.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";
import { failure, type ScriptedProvider, startScriptedProvider, truncatedJson } from "../support/scripted-provider.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });

/** Quotes what it was told in an error of every kind that people throw. */
const blurter = definePlugin({
  name: "blurter",
  version: "1.0.0",
  description: "Quotes its input in errors, for tests.",
  category: "testing",
  capabilities: ["Quote the input in an error."],
  estimatedLatency: "medium",
  requiredScopes: ["context:read"],
  maxRetries: 0,
  start: (input) => ({ command: input.task_description }),
  finish: (state: typeof State.State) => ({ status: "success", result: state.text, confidence: 1 }),
  graph: new StateGraph(State)
    .addNode(
      "blurt",
      node(async ({ command }: typeof State.State, ctx): Promise<{ text: string }> => {
        ctx.report(`working on ${command}`);
        if (command.includes("type")) throw new TypeError(`cannot read ${command}`);
        if (command.includes("parse")) JSON.parse(command);
        if (command.includes("cause")) throw new Error("failed", { cause: new Error(command) });
        throw Object.assign(new Error(command), { input: command, code: command });
      }),
    )
    .addEdge(START, "blurt")
    .addEdge("blurt", END),
});

const MARKS = {
  email: "mark-email-4d1f",
  key: "4d1f".repeat(8),
  secret: "mark-secret-4d1f",
  config: "mark-config-4d1f",
  command: "mark-command-4d1f",
  attachment: "mark-attachment-4d1f",
  "file name": "mark-file-4d1f",
  document: "mark-document-4d1f",
  conversation: "mark-conversation-4d1f",
  "idempotency key": "mark-idempotency-4d1f",
  query: "mark-query-4d1f",
  path: "mark-path-4d1f",
  "a plugin's name": "mark-plugin-4d1f",
  provider: "mark-provider-4d1f",
  "key description": "mark-description-4d1f",
} as const;

let platform: TestPlatform;
let provider: ScriptedProvider;
let tenant: TestTenant;
const lines: string[] = [];

beforeAll(async () => {
  provider = await startScriptedProvider(() => failure(400, { message: `bad: ${MARKS.provider}` }));
  platform = await startTestPlatform({
    plugins: [echo, filer, asker, keeper, blurter, ticketProcessor],
    onLogLine: (line) => lines.push(line),
    env: { ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: MARKS.secret },
  });
  tenant = await platform.tenant();
});
afterAll(async () => {
  await platform?.stop();
  await provider?.stop();
});

const attachments = [{ name: `${MARKS["file name"]}.txt`, media_type: "text/plain", content: MARKS.attachment }];
const submit = (body: object, headers: Record<string, string> = {}) => tenant.api("POST", "/v1/tasks", body, { prefer: "wait=20", ...headers });
const { command } = MARKS;

/** What people do, rightly and wrongly. Each gives the statuses that it must meet, so that the way that is meant was really gone. */
const WAYS: Record<string, () => Promise<[number, ...number[]]>> = {
  "tasks that succeed": async () => {
    const userId = await newUser(platform.db, tenant.tenantId, `${MARKS.email}@people.example`);
    const { key } = await tenant.mintKey({ userId, description: MARKS["key description"] });
    const headers = { prefer: "wait=20", "idempotency-key": MARKS["idempotency key"] };
    const call = (body: object, more = {}) => platform.call("POST", "/v1/tasks", { key, body, headers: { ...headers, ...more } });
    const done = await call({ command, plugin: "echo", attachments, conversation_id: MARKS.conversation });
    await call({ command: "another body", plugin: "echo" });
    const file = await call({ command, plugin: "filer" }, { "idempotency-key": "other" });
    await platform.call("GET", `/v1/tasks/${file.body.task_id}/artifacts/report.txt`, { key });
    await call({ command: `Create a ticket: ${command} is broken`, plugin: "ticket-processor" }, { "idempotency-key": "third" });
    await platform.call("GET", `/v1/tasks/${done.body.task_id}/events`, { key });
    const taken = await platform.call("GET", `/v1/gdpr/export?user_id=${publicId("user", userId)}`, { key });
    const erased = await platform.call("POST", "/v1/gdpr/erasure-request", { key, body: { user_id: publicId("user", userId) } });
    return [done.status, taken.status, erased.status];
  },
  "plugins that quote their input in errors": async () => {
    for (const how of ["type", "parse", "cause", "code"]) {
      // Each failure counts against the plugin, and one that comes late would meet an open circuit.
      await forgetCircuits(platform.redis.url);
      expect((await submit({ command: `${how} ${command}`, plugin: "blurter", attachments })).body.status, how).toBe("failed");
    }
    return [200];
  },
  "a provider that quotes in its errors, and one that breaks off": async () => {
    const { body } = await submit({ command, plugin: "asker" });
    provider.use(() => truncatedJson());
    await submit({ command: `again ${command}`, plugin: "asker" });
    expect(body.status).toBe("failed");
    return [200];
  },
  "bodies that are refused": async () => {
    const answers = [
      await submit({ command, [MARKS.query]: command }),
      await submit({ command: `${command} ${"x".repeat(11_000)}` }),
      await submit({ command, attachments: [{ name: MARKS["file name"], media_type: MARKS.attachment }] }),
      await submit({ command, plugin: "echo", plan: [{ id: "a", plugin: "echo", command }] }),
      await platform.call("POST", "/v1/tasks", { key: tenant.key, rawBody: `{"command": "${command}"` }),
      await submit({ command, conversation_id: `${MARKS.conversation} with blanks` }),
      await submit({ command }, { "idempotency-key": `${MARKS["idempotency key"]} with blanks` }),
    ];
    return answers.map(({ status }) => (status >= 400 && status < 500 ? 422 : status)) as [number, ...number[]];
  },
  "names of what is not there": async () => {
    const answers = [
      await submit({ command, plugin: MARKS["a plugin's name"] }),
      await tenant.api("GET", `/v1/${MARKS.path}`),
      await tenant.api("GET", `/v1/tasks/${MARKS.path}`),
      await tenant.api("GET", `/v1/plugins/${MARKS.path}/config`),
      await tenant.api("GET", `/v1/plugins/filer/secrets/${MARKS.path}`),
    ];
    await tenant.api("GET", `/v1/plugins?q=${MARKS.query}`);
    await tenant.api("GET", `/v1/tasks?cursor=${MARKS.query}`);
    return answers.map(({ status }) => (status === 405 ? 404 : status)) as [number, ...number[]];
  },
  "keys that are none": async () => {
    const calls = [`sk_live_${MARKS.key}`, `sk_live_${MARKS.key}0`, MARKS.secret].map((key) => platform.call("GET", "/v1/tasks", { key }));
    return (await Promise.all(calls)).map(({ status }) => status) as [number, ...number[]];
  },
  "secrets, settings and documents, good and bad": async () => {
    const answers = [
      await tenant.api("PUT", "/v1/plugins/keeper/secrets/token", { value: MARKS.secret }),
      await submit({ command, plugin: "keeper" }),
      await tenant.api("PUT", "/v1/plugins/keeper/config", { config: { style: MARKS.config } }),
      await tenant.api("PUT", "/v1/plugins/keeper/secrets/unknown", { value: MARKS.secret }),
      await tenant.api("POST", "/v1/knowledge", { content: MARKS.document, source_url: `https://wiki.example.com/${MARKS.document}` }),
      await tenant.api("POST", "/v1/knowledge", { content: MARKS.document, media_type: MARKS.document }),
      await tenant.api("GET", `/v1/knowledge/search?q=${MARKS.query}`),
    ];
    expect(answers.map(({ status }) => status)).not.toContain(500);
    return [answers[0]?.status ?? 0];
  },
  "plugins that do wrong": async () => {
    for (const evil of EVIL.filter(({ kind }) => ["crash", "invalid-envelope", "not-a-number", "unknown-status", "redirect"].includes(kind))) {
      const pod = await startEvil(evil);
      try {
        const answer = await fetch(`${platform.internalUrl}/internal/registry/register`, {
          method: "POST",
          headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
          body: JSON.stringify({ manifest: evilManifest(evil.kind), endpoint: pod.url }),
        });
        expect(answer.status).toBe(201);
        const wronged = await platform.tenant({ subscriptions: { [`evil-${evil.kind}`]: null } });
        await wronged.api("POST", "/v1/tasks", { command, plugin: `evil-${evil.kind}`, attachments }, { prefer: "wait=20" });
      } finally {
        await pod.stop();
      }
    }
    return [201];
  },
  "events and rows that cannot be": async () => {
    const answer = await fetch(`${platform.internalUrl}/functions/task-execute`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json", "ce-id": MARKS.path, "ce-source": "/x", "ce-type": MARKS.path },
      body: JSON.stringify({ task_id: command }),
    });
    // A statement that the database refuses with the value in its message.
    await platform.db.call("UPDATE tasks SET result = jsonb_build_object('result', jsonb_build_array($1::text)) WHERE tenant_id = $2", [command, tenant.tenantId]);
    // One that has ended: another's end would still write its result.
    const tasks = await tenant.api("GET", "/v1/tasks?limit=1&status=success");
    const broken = await tenant.api("GET", `/v1/tasks/${tasks.body.tasks[0]?.task_id}`);
    return [answer.status, broken.status];
  },
};

const EXPECTED: Record<string, number[]> = {
  "tasks that succeed": [200, 200, 202],
  "bodies that are refused": Array(7).fill(422),
  "names of what is not there": Array(5).fill(404),
  "keys that are none": [401, 401, 401],
  "events and rows that cannot be": [422, 500],
};

describe("the log", () => {
  it.each(Object.keys(WAYS))("holds nothing that somebody wrote: %s", async (way) => {
    const statuses = await WAYS[way]?.();
    if (EXPECTED[way]) expect(statuses).toEqual(EXPECTED[way]);
    const metrics = await (await fetch(`${platform.internalUrl}/metrics`)).text();
    for (const [what, mark] of Object.entries(MARKS)) {
      expect(
        lines.filter((line) => line.includes(mark)),
        `${what} in the log`,
      ).toEqual([]);
      expect(metrics, `${what} in a metric`).not.toContain(mark);
    }
  });

  it("was written all the time, one JSON object a line", () => {
    expect(lines.length).toBeGreaterThan(100);
    for (const line of lines) expect(v.is(v.looseObject({ level: v.string(), message: v.string() }), JSON.parse(line)), line).toBe(true);
  });
});
