import { createHmac } from "node:crypto";
import type { ServerResponse } from "node:http";
import { Redis } from "ioredis";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { asId, parseId, publicId } from "../../shared/ids.ts";
import { taskStream, WEBHOOK_STREAM } from "../../shared/redis/streams.ts";
import { deprecatePlugin, restorePlugin } from "../../shared/registry/plugin-lifecycle.ts";
import { MAX_TRIES, webhookDelayMs } from "../../shared/webhooks/retry-schedule.ts";
import { failer } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { type Receiver, startReceiver, verify } from "./receiver.ts";

let platform: TestPlatform;
let admin: pg.Client;
const receivers: Receiver[] = [];

beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, failer], env: { AAU_ALLOW_PRIVATE_WEBHOOKS: "true", CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0" } });
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
});
afterEach(async () => {
  for (const receiver of receivers.splice(0)) await receiver.close();
});
afterAll(async () => {
  await admin?.end();
  await platform?.stop();
});

async function receiver(...behaviour: Parameters<typeof startReceiver>): Promise<Receiver> {
  const started = await startReceiver(...behaviour);
  receivers.push(started);
  return started;
}

const ALL = ["task.completed", "task.failed", "task.cancelled", "task.needs_input", "quota.warning", "webhook.disabled"];

async function endpoint(tenant: TestTenant, url: string, events = ALL): Promise<{ id: string; secret: string }> {
  const { body } = await tenant.api("POST", "/v1/webhooks", { url, events });
  return { id: body.webhook_id, secret: body.secret };
}
const run = async (tenant: TestTenant, plugin = "echo", command = "hello") => (await tenant.api("POST", "/v1/tasks", { command, plugin }, { prefer: "wait=20" })).body;
// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
const deliveries = async (tenant: TestTenant, id: string): Promise<any[]> => (await tenant.api("GET", `/v1/webhooks/${id}/deliveries`)).body.deliveries;
const delivery = (tenant: TestTenant, id: string, status: string, attempts: number) =>
  vi.waitFor(
    async () => {
      const [one] = await deliveries(tenant, id);
      expect(one).toMatchObject({ status });
      expect(one.attempts.length).toBeGreaterThanOrEqual(attempts);
      return one;
    },
    { timeout: 30_000, interval: 50 },
  );
const tell = (tenant: TestTenant, key: string) => platform.db.call("SELECT enqueue_webhook_event($1, 'quota.warning', $2, '{\"plugin\": \"echo\"}')", [tenant.tenantId, key]);
/** How often senders were rung for, ever. */
async function rung(): Promise<number> {
  const redis = new Redis(platform.redis.url);
  try {
    const info = (await redis.xinfo("STREAM", WEBHOOK_STREAM)) as unknown[];
    return Number(info[info.indexOf("entries-added") + 1]);
  } finally {
    redis.disconnect();
  }
}
/** Lets the time until the next attempt pass. */
const makeDue = async (id: string) => {
  await admin.query("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE webhook_id = $1 AND status = 'pending'", [parseId("webhook", id)]);
  await admin.query("UPDATE webhooks SET next_ring_at = NULL, resume_at = least(resume_at, now()) WHERE id = $1", [parseId("webhook", id)]);
  await platform.runCron("wake");
};

describe("an endpoint", () => {
  it("is told of a task that ended: once, signed in both ways, with what GET shows", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id, secret } = await endpoint(tenant, `${hooks.url}/in`);
    expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    const task = await run(tenant);
    const heard = await hooks.hears();
    expect(() => verify(secret, heard)).not.toThrow();
    expect(() => verify(secret, { ...heard, body: heard.body.replace("hello", "other") })).toThrow();
    expect(heard.headers["x-aau-signature"]).toBe(`sha256=${createHmac("sha256", secret).update(heard.body).digest("hex")}`);
    expect(heard).toMatchObject({ path: "/in", headers: { "content-type": "application/json", "accept-encoding": "identity", "user-agent": "aau-webhooks/1" } });
    const event = JSON.parse(heard.body);
    expect(event).toEqual({ id: heard.headers["webhook-id"], type: "task.completed", created_at: expect.any(String), data: expect.any(Object) });
    const shown = (await tenant.api("GET", `/v1/tasks/${task.task_id}`)).body;
    expect(event.data).toEqual({ ...shown, environment: "live", url: expect.stringMatching(`/v1/tasks/${task.task_id}$`), is_truncated: false });
    const one = await delivery(tenant, id, "delivered", 1);
    expect(one).toMatchObject({ event_id: event.id, type: "task.completed", task_id: task.task_id, attempts: [{ attempt: 1, status: 204, error: null, answer: "" }] });
    expect(hooks.heard).toHaveLength(1);
    expect(JSON.stringify((await tenant.api("GET", "/v1/webhooks")).body)).not.toContain(secret);
  });

  it("is told of a question as it was asked, also after it was answered", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id, secret } = await endpoint(tenant, hooks.url, ["task.needs_input"]);
    // With these lines, whatever names no plugin is a question.
    const { body: task } = await tenant.api("POST", "/v1/tasks", { command: "say hello" });
    expect(task.status).toBe("pending");
    const asked = await hooks.hears();
    verify(secret, asked);
    const { data } = JSON.parse(asked.body);
    expect(data).toEqual({ ...(await tenant.api("GET", `/v1/tasks/${task.task_id}`)).body, environment: "live", url: expect.any(String), is_truncated: false });
    await tenant.api("POST", `/v1/tasks/${task.task_id}/input`, { plugin: "echo" }, { prefer: "wait=20" });
    const { delivery_id } = await delivery(tenant, id, "delivered", 1);
    await tenant.api("POST", `/v1/webhooks/${id}/deliveries/${delivery_id}/redeliver`);
    expect((await hooks.hears((heard) => heard !== asked)).body).toBe(asked.body);
  });

  it("is told of failure and of the cancelling of a queued task, each under its type", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    await endpoint(tenant, hooks.url);
    await run(tenant, "failer", "fail");
    const failed = JSON.parse((await hooks.hears(({ body }) => body.includes('"task.failed"'))).body);
    expect(failed.data).toMatchObject({ status: "failed", error: { code: expect.any(String) } });

    const queued = asId("task", parseId("task", (await run(tenant)).task_id) ?? "");
    await admin.query("UPDATE tasks SET status = 'queued', result = NULL WHERE id = $1", [queued]);
    await admin.query("DELETE FROM webhook_deliveries WHERE task_id = $1", [queued]);
    const [cancelled] = await platform.db.call<{ rings: string[] }>("SELECT * FROM cancel_task($1, $2)", [tenant.tenantId, queued]);
    expect(cancelled?.rings).toHaveLength(1);
    await platform.runCron("wake");
    expect(JSON.parse((await hooks.hears(({ body }) => body.includes('"task.cancelled"'))).body).data.status).toBe("cancelled");
  });

  it("is told at once of a task whose deadline passed in the queue, which no executor settles", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id } = await endpoint(tenant, hooks.url, ["task.failed"]);
    const task = asId("task", parseId("task", (await run(tenant)).task_id) ?? "");
    for (const table of ["task_steps", "execution_events"]) await admin.query(`DELETE FROM ${table} WHERE task_id = $1`, [task]);
    await admin.query("UPDATE tasks SET status = 'queued', result = NULL, deadline = now() - interval '1 second' WHERE id = $1", [task]);
    const redis = new Redis(platform.redis.url);
    await redis.xadd(taskStream("echo"), "*", "task_id", publicId("task", task), "traceparent", "").finally(() => redis.disconnect());
    const told = await hooks.hears(({ body }) => body.includes('"task.failed"'));
    expect(JSON.parse(told.body).data).toMatchObject({ status: "failed", error: { code: "PLUGIN_TIMEOUT" } });
    expect(await deliveries(tenant, id)).toHaveLength(1);
  });

  it("that asked for other events, or belongs to another tenant, hears nothing", async () => {
    const [tenant, stranger, hooks, loud] = [await platform.tenant(), await platform.tenant(), await receiver(), await receiver()];
    const quiet = await endpoint(tenant, hooks.url, ["task.failed"]);
    await endpoint(stranger, hooks.url);
    await endpoint(tenant, loud.url);
    await run(tenant);
    await loud.hears();
    expect(await deliveries(tenant, quiet.id)).toEqual([]);
    expect(hooks.heard).toEqual([]);
  });

  it("that fails is told again later, under the same id and body, with a fresh timestamp and signature", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver((_, response) => response.writeHead(500).end("down for repair"))];
    const { id, secret } = await endpoint(tenant, hooks.url);
    await run(tenant);
    const first = await delivery(tenant, id, "pending", 1);
    expect(first.attempts[0]).toMatchObject({ status: 500, error: "refused", answer: "down for repair" });
    const inMs = Date.parse(first.next_attempt_at) - Date.parse(first.attempts[0].at);
    expect(inMs).toBeGreaterThan(40_000);
    expect(inMs).toBeLessThan(90_000);
    hooks.answer((_, response) => response.writeHead(200).end("thanks"));
    await makeDue(id);
    expect((await delivery(tenant, id, "delivered", 2)).attempts.map((a: { status: number }) => a.status)).toEqual([500, 200]);
    const [one, two] = hooks.heard;
    if (!one || !two) throw new Error("heard once");
    for (const heard of [one, two]) verify(secret, heard);
    expect([two.headers["webhook-id"], two.body]).toEqual([one.headers["webhook-id"], one.body]);
    expect(Number(two.headers["webhook-timestamp"])).toBeGreaterThanOrEqual(Number(one.headers["webhook-timestamp"]));
  });

  it("that answers 410 is disabled, and the tenant's other endpoints are told", async () => {
    const [tenant, gone, other] = [await platform.tenant(), await receiver((_, response) => response.writeHead(410).end()), await receiver()];
    const { id } = await endpoint(tenant, gone.url, ["quota.warning"]);
    await endpoint(tenant, other.url, ["webhook.disabled"]);
    await tell(tenant, "one");
    await platform.runCron("wake");
    const notice = JSON.parse((await other.hears()).body);
    expect(notice).toMatchObject({ type: "webhook.disabled", data: { webhook_id: id, url: `${gone.url}/`, reason: "gone" } });
    expect((await tenant.api("GET", `/v1/webhooks/${id}`)).body).toMatchObject({ status: "disabled", disabled_reason: "gone" });
    expect((await tenant.api("GET", "/v1/audit?action=webhook.disabled")).body.entries).toHaveLength(1);
    await tell(tenant, "two");
    expect((await deliveries(tenant, id)).map(({ status }) => status)).toEqual(["held", "failed"]);
  });

  it("that failed for five days is disabled; what waits is held, and sent by recover once it is enabled", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver((_, response) => response.writeHead(503).end())];
    const { id } = await endpoint(tenant, hooks.url, ["quota.warning"]);
    await tell(tenant, "one");
    await platform.runCron("wake");
    await delivery(tenant, id, "pending", 1);
    await admin.query("UPDATE webhooks SET failures = 20, failing_since = now() - interval '121 hours' WHERE id = $1", [parseId("webhook", id)]);
    await makeDue(id);
    await delivery(tenant, id, "held", 2);
    expect((await tenant.api("GET", `/v1/webhooks/${id}`)).body).toMatchObject({ status: "disabled", disabled_reason: "failing" });
    expect((await tenant.api("POST", `/v1/webhooks/${id}/recover`, { since: "2026-01-01T00:00:00Z" })).status).toBe(409);
    hooks.answer((_, response) => response.writeHead(204).end());
    await tenant.api("PATCH", `/v1/webhooks/${id}`, { enabled: true });
    expect((await tenant.api("POST", `/v1/webhooks/${id}/recover`, { since: "2026-01-01T00:00:00Z" })).body).toEqual({ recovered: 1 });
    await delivery(tenant, id, "delivered", 3);
    expect((await tenant.api("GET", `/v1/webhooks/${id}`)).body).toMatchObject({ status: "active", failing_since: null });
    expect((await tenant.api("POST", `/v1/webhooks/${id}/recover`, { since: "2026-01-01T00:00:00Z" })).body).toEqual({ recovered: 0 });
    expect((await tenant.api("GET", "/v1/audit?action=webhook.recovered")).body.entries).toEqual([
      expect.objectContaining({ target: { type: "webhook", id }, details: { since: "2026-01-01T00:00:00.000Z", deliveries: 1 } }),
    ]);
  });

  it("is told of a plugin's end with the API's times", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    await endpoint(tenant, hooks.url, ["plugin.deprecated"]);
    await deprecatePlugin(platform.db, "failer", { sunsetAt: null, guideUrl: null });
    await platform.runCron("wake");
    const { data } = JSON.parse((await hooks.hears()).body);
    await restorePlugin(platform.db, "failer");
    expect(Object.keys(data).sort()).toEqual(["deprecated_at", "migration_guide_url", "plugin", "status", "sunset_at"]);
    for (const at of [data.deprecated_at, data.sunset_at]) expect(at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });

  it("that fails after a long silence, which was a failure too, is not one that fails all the time", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver((_, response) => response.writeHead(503).end())];
    const { id } = await endpoint(tenant, hooks.url, ["quota.warning"]);
    await admin.query("UPDATE webhooks SET failures = 9, failing_since = now() - interval '30 days', last_failure_at = now() - interval '26 days' WHERE id = $1", [
      parseId("webhook", id),
    ]);
    await tell(tenant, "one");
    await makeDue(id);
    const { attempts } = await delivery(tenant, id, "pending", 1);
    const shown = (await tenant.api("GET", `/v1/webhooks/${id}`)).body;
    expect(shown.status).toBe("active");
    expect(Date.parse(shown.failing_since)).toBeGreaterThanOrEqual(Date.parse(attempts[0].at));
  });

  it("is told one delivery again when its owner asks while the last attempt is on its way", async () => {
    const open: ServerResponse[] = [];
    const [tenant, hooks] = [await platform.tenant(), await receiver((_, response) => void open.push(response))];
    const { id } = await endpoint(tenant, hooks.url, ["quota.warning"]);
    await tell(tenant, "one");
    await admin.query("UPDATE webhook_deliveries SET tries = $2 WHERE webhook_id = $1", [parseId("webhook", id), MAX_TRIES - 1]);
    await makeDue(id);
    await hooks.hears();
    const [{ delivery_id }] = await deliveries(tenant, id);
    expect((await tenant.api("POST", `/v1/webhooks/${id}/deliveries/${delivery_id}/redeliver`)).status).toBe(202);
    hooks.answer((_, response) => response.writeHead(204).end());
    open[0]?.writeHead(503).end();
    // It is due at once, and the sender that is awake may find it by itself.
    await vi.waitFor(async () => expect((await deliveries(tenant, id))[0].attempts).not.toEqual([]), { timeout: 10_000 });
    await makeDue(id);
    await delivery(tenant, id, "delivered", 2);
  });

  it("keeps the old secret for as long as was promised: another rotation has to wait, or to end it", async () => {
    const tenant = await platform.tenant();
    const { id } = await endpoint(tenant, "http://127.0.0.1:9/");
    const rotate = (body: unknown) => tenant.api("POST", `/v1/webhooks/${id}/rotate`, body);
    expect((await rotate({})).status).toBe(201);
    const refused = await rotate({ grace_seconds: 60 });
    expectRefusal(refused, "CONFLICT");
    expect(refused.body.error.message).toContain("grace_seconds 0");
    expect((await rotate({ grace_seconds: 0 })).status).toBe(201);
    expect((await rotate({})).status).toBe(201);
    expectRefusal(await tenant.api("POST", `/v1/webhooks/${publicId("webhook", tenant.tenantId)}/rotate`, {}), "NOT_FOUND");
  });

  it("is told one delivery again when its owner asks", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id } = await endpoint(tenant, hooks.url);
    await run(tenant);
    const { delivery_id } = await delivery(tenant, id, "delivered", 1);
    expect((await tenant.api("POST", `/v1/webhooks/${id}/deliveries/${delivery_id}/redeliver`)).status).toBe(202);
    await delivery(tenant, id, "delivered", 2);
    expect(new Set(hooks.heard.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
    expect((await tenant.api("GET", "/v1/audit?action=webhook.redelivered")).body.entries).toEqual([
      expect.objectContaining({ target: { type: "webhook", id }, details: { delivery: delivery_id } }),
    ]);
  });

  it("can check with the old secret and the new one while the grace period lasts, and with the new one alone after", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id, secret: old } = await endpoint(tenant, hooks.url);
    const { secret: fresh } = (await tenant.api("POST", `/v1/webhooks/${id}/rotate`, {})).body;
    await run(tenant);
    const during = await hooks.hears();
    for (const secret of [old, fresh]) verify(secret, during);
    expect(String(during.headers["x-aau-signature"]).split(",")).toEqual([fresh, old].map((secret) => `sha256=${createHmac("sha256", secret).update(during.body).digest("hex")}`));
    await admin.query("UPDATE webhooks SET previous_secret_until = now() WHERE id = $1", [parseId("webhook", id)]);
    await run(tenant);
    const after = await hooks.hears((heard) => heard !== during);
    verify(fresh, after);
    expect(() => verify(old, after)).toThrow();
  });

  it("is given no more than two requests at a time, and delays nobody else's", async () => {
    const [tenant, slow, quick] = [await platform.tenant(), await receiver(() => {}), await receiver()];
    await endpoint(tenant, slow.url, ["quota.warning"]);
    const other = await endpoint(tenant, quick.url, ["quota.warning"]);
    for (let i = 0; i < 5; i++) await tell(tenant, `event ${i}`);
    await platform.runCron("wake");
    await vi.waitFor(async () => expect((await deliveries(tenant, other.id)).map(({ status }) => status)).toEqual(Array(5).fill("delivered")), { timeout: 20_000 });
    expect(slow.heard.length).toBeLessThanOrEqual(2);
  });

  it("that takes its time gives its place to others after each request, and still hears all", async () => {
    const [tenant, slow] = [await platform.tenant(), await receiver((_, response) => void setTimeout(() => response.writeHead(204).end(), 1_100))];
    const { id } = await endpoint(tenant, slow.url, ["quota.warning"]);
    for (let i = 0; i < 4; i++) await tell(tenant, `event ${i}`);
    const before = await rung();
    await platform.runCron("wake");
    await vi.waitFor(async () => expect((await deliveries(tenant, id)).map(({ status }) => status)).toEqual(Array(4).fill("delivered")), { timeout: 20_000 });
    // One wake-up for the first two, one for the next.
    expect((await rung()) - before).toBeGreaterThanOrEqual(2);
  });

  it("hears again what a sender that died may have sent, once its lease is over", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id } = await endpoint(tenant, hooks.url, ["quota.warning"]);
    await tell(tenant, "one");
    const claim = () => platform.db.call("SELECT * FROM claim_webhook_delivery($1, 30000, 2, 9)", [parseId("webhook", id)]);
    expect(await claim()).toHaveLength(1);
    expect(await claim(), "held by the lease").toEqual([]);
    await admin.query("UPDATE webhook_deliveries SET lease_until = now() - interval '1 second' WHERE webhook_id = $1", [parseId("webhook", id)]);
    await makeDue(id);
    const one = await delivery(tenant, id, "delivered", 2);
    expect(one.attempts.map(({ error }: { error: string | null }) => error)).toEqual(["interrupted", null]);
  });

  it("is given no more than two at a time by all senders together, however many wake up for it", async () => {
    const tenant = await platform.tenant();
    const { id } = await endpoint(tenant, "http://127.0.0.1:9/", ["quota.warning"]);
    for (let i = 0; i < 6; i++) await tell(tenant, `event ${i}`);
    const claims = await Promise.all(Array.from({ length: 6 }, () => platform.db.call("SELECT * FROM claim_webhook_delivery($1, 30000, 2, 9)", [parseId("webhook", id)])));
    expect(claims.flat()).toHaveLength(2);
  });

  it("has each attempt put down by the sender that holds it, and by none whose lease was taken over", async () => {
    const tenant = await platform.tenant();
    const { id } = await endpoint(tenant, "http://127.0.0.1:9/", ["quota.warning"]);
    await tell(tenant, "one");
    const claim = async () =>
      (await platform.db.call<{ delivery_id: string; lease_token: string }>("SELECT * FROM claim_webhook_delivery($1, 30000, 2, 9)", [parseId("webhook", id)]))[0];
    const stale = await claim();
    await admin.query("UPDATE webhook_deliveries SET lease_until = now() - interval '1 second' WHERE webhook_id = $1", [parseId("webhook", id)]);
    const held = await claim();
    const finish = (lease: string | undefined) =>
      platform.db.call("SELECT held FROM finish_webhook_attempt($1, $2, $3, $4, 'delivered', 204, 1, NULL, '', NULL, 1)", [
        tenant.tenantId,
        parseId("webhook", id),
        held?.delivery_id,
        lease,
      ]);
    const release = (lease: string | undefined) => platform.db.call("SELECT release_webhook_delivery($1, $2, $3, 0) AS released", [tenant.tenantId, held?.delivery_id, lease]);
    expect(await finish(stale?.lease_token)).toEqual([{ held: false }]);
    expect(await release(stale?.lease_token)).toEqual([{ released: false }]);
    expect((await deliveries(tenant, id))[0]).toMatchObject({ status: "pending", attempts: [{ attempt: 1, error: "interrupted" }] });
    expect(await finish(held?.lease_token)).toEqual([{ held: true }]);
    expect((await deliveries(tenant, id))[0]).toMatchObject({ status: "delivered", attempts: [{ attempt: 1 }, { attempt: 2, status: 204 }] });
  });

  it("that was deleted is asked nothing more", async () => {
    const [tenant, hooks] = [await platform.tenant(), await receiver()];
    const { id } = await endpoint(tenant, hooks.url, ["quota.warning"]);
    await tell(tenant, "one");
    expect((await tenant.api("DELETE", `/v1/webhooks/${id}`)).status).toBe(204);
    await tell(tenant, "two");
    await platform.runCron("wake");
    expect((await admin.query("SELECT 1 FROM webhook_deliveries WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([]);
    expect(hooks.heard).toEqual([]);
  });

  it("cannot be made when the tenant has twenty, also by two at once", async () => {
    const tenant = await platform.tenant();
    const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => tenant.api("POST", "/v1/webhooks", { url: `http://127.0.0.1:9/${i}`, events: ["task.failed"] })));
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(20).fill(201), ...Array(4).fill(409)]);
  });
});

describe("the schedule", () => {
  it("is 1 m, 5 m, 30 m, 2 h, 8 h and three days more, give or take a fifth", () => {
    const minutes = (random: number) => Array.from({ length: MAX_TRIES - 1 }, (_, i) => (webhookDelayMs(i + 1, null, () => random) ?? 0) / 60_000);
    expect(minutes(0.5)).toEqual([1, 5, 30, 120, 480, 1440, 1440, 1440]);
    expect(minutes(0)[0]).toBeCloseTo(0.8);
    expect(minutes(1)[0]).toBeCloseTo(1.2);
    expect(webhookDelayMs(MAX_TRIES, null)).toBeNull();
  });

  it("waits as long as the receiver asks, within a day", () => {
    expect(webhookDelayMs(1, 600_000, () => 0.5)).toBe(600_000);
    expect(webhookDelayMs(1, 1_000, () => 0.5)).toBe(60_000);
    expect(webhookDelayMs(1, 1e12, () => 0.5)).toBe(86_400_000);
  });
});
