/** Every public function is called until each of its declared replies was seen, and every reply is held to its schema. */
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parseId, publicId } from "../../shared/ids.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";
import { newUser as newPerson } from "../privacy/people.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { keepWaiting } from "../support/waiting-artifact.ts";
import { addressOf, byName, PUBLIC } from "./declared.ts";
import { filer, keeper } from "./plugins.ts";
import { expectRateHeaders } from "./refusal.ts";

let platform: TestPlatform;
let own: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer, keeper], env: { CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0", AAU_ALLOW_PRIVATE_WEBHOOKS: "true" } });
  own = await platform.tenant();
});
afterAll(() => platform?.stop());

const submit = (command = "say it", plugin = "echo", headers: Record<string, string> = {}) => own.api("POST", "/v1/tasks", { command, plugin }, headers);
/** With these lines, whatever names no plugin is a question. */
const answered = async (headers: Record<string, string> = {}) => {
  const { task_id } = (await own.api("POST", "/v1/tasks", { command: "say it" })).body;
  return own.api("POST", `/v1/tasks/${task_id}/input`, { plugin: "echo" }, headers);
};
const finished = async (plugin = "echo") => (await submit("say it", plugin, { prefer: "wait=20" })).body.task_id;
const newDocument = async (content = `Passage ${crypto.randomUUID()}`) => (await own.api("POST", "/v1/knowledge", { content })).body.document_id;
const otherKey = async () => (await own.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] })).body.id;

const newUser = () => own.api("POST", "/v1/users", { email: `${crypto.randomUUID()}@example.com`, role: "billing" });
/** Subscribed once more to a plugin that the tenant has just left. */
const newSubscription = async () => {
  const { subscriptions } = (await own.api("GET", "/v1/subscriptions?status=active&plugin=filer")).body;
  for (const { subscription_id } of subscriptions) await own.api("DELETE", `/v1/subscriptions/${subscription_id}`);
  return own.api("POST", "/v1/subscriptions", { plugin: "filer" });
};
const closedInvoice = async () => {
  await closeMonth(platform.db, own.tenantId, `${new Date().toISOString().slice(0, 7)}-01`);
  return (await own.api("GET", "/v1/invoices")).body.invoices[0].invoice_id;
};
const newWebhook = async (url = "https://hooks.aau.io/tasks") => {
  for (const { webhook_id } of (await own.api("GET", "/v1/webhooks")).body.webhooks.slice(10)) await own.api("DELETE", `/v1/webhooks/${webhook_id}`);
  return own.api("POST", "/v1/webhooks", { url, events: ["task.completed"], description: "a" });
};
const webhook = async (url?: string) => (await newWebhook(url)).body.webhook_id;
/** An endpoint where nobody listens, with a delivery that was tried. */
const tried = async () => {
  const id = await webhook("http://127.0.0.1:9/");
  await finished();
  return vi.waitFor(
    async () => {
      const [delivery] = (await own.api("GET", `/v1/webhooks/${id}/deliveries`)).body.deliveries;
      expect(delivery.attempts).toHaveLength(1);
      return { webhook: id, delivery: delivery.delivery_id };
    },
    { timeout: 20_000 },
  );
};

const eraseSomebody = async () => own.api("POST", "/v1/gdpr/erasure-request", { user_id: publicId("user", await newPerson(platform.db, own.tenantId)) });
const setSecret = () => own.api("PUT", "/v1/plugins/keeper/secrets/token", { value: "v" });

/** Good calls of each function; a new public function needs a line here. */
const CALLS: Record<string, (() => Promise<ApiAnswer>)[]> = {
  "task-submit": [() => submit(), () => submit("say it", "echo", { prefer: "wait=20" }), () => own.api("POST", "/v1/tasks?dry_run=true", { command: "say it", plugin: "echo" })],
  "task-list": [() => own.api("GET", "/v1/tasks"), () => own.api("GET", "/v1/tasks?limit=1&status=success&plugin=echo")],
  "task-poll": [async () => own.api("GET", `/v1/tasks/${await finished("filer")}`), async () => own.api("GET", `/v1/tasks/${(await submit()).body.task_id}`)],
  "task-input": [() => answered(), () => answered({ prefer: "wait=20" })],
  "task-cancel": [async () => own.api("DELETE", `/v1/tasks/${(await submit("slow", "filer")).body.task_id}`)],
  "task-events": [async () => own.api("GET", `/v1/tasks/${await finished()}/events`)],
  "artifact-download": [
    async () => own.api("GET", `/v1/tasks/${await finished("filer")}/artifacts/report.txt`),
    async () => {
      const id = await finished("filer");
      await keepWaiting(platform.db, parseId("task", id) ?? "");
      return own.api("GET", `/v1/tasks/${id}/artifacts/report.txt`);
    },
  ],
  "plugin-list": [() => own.api("GET", "/v1/plugins"), () => own.api("GET", "/v1/plugins?q=echo&category=testing")],
  "plugin-detail": [() => own.api("GET", "/v1/plugins/echo")],
  "plugin-health": [() => own.api("GET", "/v1/plugins/echo/health"), () => platform.runCron("plugin-probe").then(() => own.api("GET", "/v1/plugins/echo/health"))],
  "api-key-create": [
    () => own.api("POST", "/v1/api-keys", { scopes: ["tasks:read"], description: "a", environment: "test", expires_at: new Date(Date.now() + 60_000).toISOString() }),
  ],
  "api-key-list": [() => own.api("GET", "/v1/api-keys"), () => own.api("GET", "/v1/api-keys?limit=1")],
  "api-key-revoke": [async () => own.api("DELETE", `/v1/api-keys/${await otherKey()}`)],
  "api-key-rotate": [
    async () => own.api("POST", `/v1/api-keys/${await otherKey()}/rotate`, {}),
    async () => own.api("POST", `/v1/api-keys/${await otherKey()}/rotate`, { grace_seconds: 0 }),
  ],
  "user-create": [() => newUser()],
  "user-list": [() => own.api("GET", "/v1/users"), () => own.api("GET", "/v1/users?limit=1")],
  "user-detail": [async () => own.api("GET", `/v1/users/${(await newUser()).body.id}`)],
  "user-update": [async () => own.api("PATCH", `/v1/users/${(await newUser()).body.id}`, { role: "viewer", email: `${crypto.randomUUID()}@example.com` })],
  "user-delete": [async () => own.api("DELETE", `/v1/users/${(await newUser()).body.id}`)],
  "audit-list": [() => own.api("GET", "/v1/audit"), () => own.api("GET", "/v1/audit?limit=1&action=key.created&from=2026-01-01T00:00:00Z&to=2999-01-01T00:00:00Z")],
  "plugin-config-get": [() => own.api("GET", "/v1/plugins/echo/config")],
  "plugin-config-put": [() => own.api("PUT", "/v1/plugins/echo/config", { config: { a: 1 } })],
  "secret-put": [() => setSecret(), () => setSecret()],
  "secret-list": [() => own.api("GET", "/v1/plugins/keeper/secrets")],
  "secret-delete": [() => setSecret().then(() => own.api("DELETE", "/v1/plugins/keeper/secrets/token"))],
  "knowledge-index": [() => own.api("POST", "/v1/knowledge", { content: "# Leave\n\nEvery employee has 28 days of vacation.", source_url: "https://wiki.example.com/leave" })],
  "knowledge-list": [() => own.api("GET", "/v1/knowledge"), () => own.api("GET", "/v1/knowledge?limit=1&status=ready")],
  "knowledge-detail": [async () => own.api("GET", `/v1/knowledge/${await newDocument()}`)],
  "knowledge-delete": [async () => own.api("DELETE", `/v1/knowledge/${await newDocument()}`)],
  "knowledge-search": [
    async () => {
      const id = await newDocument("Every employee has 28 days of vacation.");
      await vi.waitFor(async () => expect((await own.api("GET", `/v1/knowledge/${id}`)).body.status).toBe("ready"), { timeout: 20_000 });
      return own.api("GET", "/v1/knowledge/search?q=days%20of%20vacation");
    },
  ],
  "subscription-create": [() => newSubscription()],
  "subscription-list": [() => own.api("GET", "/v1/subscriptions"), () => own.api("GET", "/v1/subscriptions?limit=1&status=active&plugin=echo")],
  "subscription-end": [async () => own.api("DELETE", `/v1/subscriptions/${(await newSubscription()).body.subscription_id}`)],
  "usage-get": [() => own.api("GET", "/v1/usage"), () => own.api("GET", "/v1/usage?group_by=plugin,day,key,model&environment=live")],
  "invoice-preview": [() => own.api("GET", "/v1/invoices/preview")],
  "invoice-list": [() => closedInvoice().then(() => own.api("GET", "/v1/invoices"))],
  "invoice-detail": [async () => own.api("GET", `/v1/invoices/${await closedInvoice()}`)],
  "webhook-create": [() => newWebhook()],
  "webhook-list": [() => newWebhook().then(() => own.api("GET", "/v1/webhooks"))],
  "webhook-detail": [async () => own.api("GET", `/v1/webhooks/${await webhook()}`)],
  "webhook-update": [
    async () => own.api("PATCH", `/v1/webhooks/${await webhook()}`, { url: "https://hooks.aau.io/other", events: ["task.failed"], description: "b", enabled: false }),
  ],
  "webhook-deliveries": [async () => own.api("GET", `/v1/webhooks/${(await tried()).webhook}/deliveries?limit=1&status=pending`)],
  "webhook-redeliver": [
    async () => {
      const { webhook: id, delivery } = await tried();
      return own.api("POST", `/v1/webhooks/${id}/deliveries/${delivery}/redeliver`);
    },
  ],
  "webhook-recover": [async () => own.api("POST", `/v1/webhooks/${await webhook()}/recover`, { since: "2026-01-01T00:00:00Z" })],
  "webhook-rotate": [async () => own.api("POST", `/v1/webhooks/${await webhook()}/rotate`, {})],
  "webhook-delete": [async () => own.api("DELETE", `/v1/webhooks/${await webhook()}`)],
  "erasure-request": [() => eraseSomebody()],
  "erasure-status": [
    async () => own.api("GET", `/v1/gdpr/erasure-requests/${(await eraseSomebody()).body.erasure_id}`),
    async () => {
      const { erasure_id } = (await eraseSomebody()).body;
      const read = () => own.api("GET", `/v1/gdpr/erasure-requests/${erasure_id}`);
      await vi.waitFor(async () => expect((await read()).body.status).toBe("completed"), { timeout: 20_000 });
      return read();
    },
  ],
  "data-export": [() => own.api("GET", `/v1/gdpr/export?user_id=${publicId("user", own.userId)}`)],
  openapi: [() => platform.call("GET", "/openapi.json")],
  docs: [() => platform.call("GET", "/docs")],
};

describe.each(byName(PUBLIC))("%s", (name, fn) => {
  it("gives the replies that it declares, in their shape", async () => {
    const calls = CALLS[name];
    if (!calls) throw new Error(`CALLS has no line for ${name}`);
    const seen = new Set<string>();
    for (const call of calls) {
      const answer = await call();
      const where = `${addressOf(fn).path} ${answer.status} ${answer.text.slice(0, 300)}`;
      expect(Object.keys(fn.replies), where).toContain(String(answer.status));
      seen.add(String(answer.status));
      const schema = fn.replies[answer.status];
      if (schema) {
        expect(v.safeParse(schema, answer.body).issues, where).toBeUndefined();
        expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
      } else if (fn.documented?.produces && answer.status < 300) expect(answer.headers.get("content-type")).toContain(fn.documented.produces.replace("*/*", "/"));
      else expect(answer.text, where).toBe("");
      expect(answer.headers.get("x-request-id"), where).toMatch(/^req_/);
      expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
      if (fn.scope !== "public") expectRateHeaders(answer, where);
    }
    expect([...seen].sort(), "every declared status was seen").toEqual(Object.keys(fn.replies).sort());
  });
});
