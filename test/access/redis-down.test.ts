import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let folder: string;
let second: LocalRedis | null = null;
let tenant: TestTenant;
let revoked: string;
let expired: string;

/** The whole file lives after the end of Redis; the last test brings it back, empty. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-test-"));
  platform = await startTestPlatform({ plugins: [echo] });
  tenant = await platform.tenant();
  expect((await tenant.api("POST", "/v1/tasks", { command: "warm", plugin: "echo" }, { prefer: "wait=20" })).body.status).toBe("success");
  const created = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  expect((await platform.call("GET", "/v1/tasks", { key: created.body.key })).status).toBe(200);
  await tenant.api("DELETE", `/v1/api-keys/${created.body.id}`);
  revoked = created.body.key;
  expired = (await tenant.mintKey({ expiresAt: new Date(Date.now() - 1_000) })).key;
  await platform.redis.stop();
});
afterAll(async () => {
  await platform?.stop();
  await second?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("without Redis", () => {
  it("keys are read from PostgreSQL: good ones work, others do not", async () => {
    expect((await tenant.api("GET", "/v1/tasks")).status).toBe(200);
    const fresh = await tenant.mintKey();
    expect((await platform.call("GET", "/v1/tasks", { key: fresh.key })).status).toBe(200);
    const tail = tenant.key.endsWith("0") ? "1" : "0";
    for (const key of [revoked, expired, `${tenant.key.slice(0, -1)}${tail}`, `sk_live_${"0".repeat(32)}`])
      expectRefusal(await platform.call("GET", "/v1/tasks", { key }), "AUTH_INVALID");
  });

  it("limits are counted in the process, and told", async () => {
    const limited = await platform.tenant({ settings: { rate_limits: { per_tenant: 6, per_plugin: 2 } } });
    const submits = [];
    for (let i = 0; i < 3; i++) submits.push(await limited.api("POST", "/v1/tasks", { command: "x", plugin: "echo" }));
    expect(submits.map((answer) => answer.status)).toEqual([202, 202, 429]);
    const reads = [];
    for (let i = 0; i < 4; i++) reads.push(await limited.api("GET", "/v1/tasks"));
    expect(reads.map((answer) => [answer.status, answer.headers.get("x-ratelimit-remaining")])).toEqual([
      [200, "2"],
      [200, "1"],
      [200, "0"],
      [429, "0"],
    ]);
    expect(Number(reads.at(-1)?.headers.get("retry-after"))).toBeGreaterThan(0);
  });

  it("a revocation says that it cannot vouch for the caches, and holds all the same", async () => {
    const created = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    expect(created.status).toBe(201);
    const answer = await tenant.api("DELETE", `/v1/api-keys/${created.body.id}`);
    expectRefusal(answer, "SERVICE_UNAVAILABLE");
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    expectRefusal(await platform.call("GET", "/v1/tasks", { key: created.body.key }), "AUTH_INVALID");
  });

  it("a rotation still hands out the new key", async () => {
    const created = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
    const rotated = await tenant.api("POST", `/v1/api-keys/${created.body.id}/rotate`, { grace_seconds: 0 });
    expect(rotated.status).toBe(201);
    expect((await platform.call("GET", "/v1/tasks", { key: rotated.body.key })).status).toBe(200);
    expectRefusal(await platform.call("GET", "/v1/tasks", { key: created.body.key }), "AUTH_INVALID");
  });

  it("money is not affected: quotas and idempotency keys hold", async () => {
    const poor = await platform.tenant({ subscriptions: { echo: 2 } });
    const answers = await Promise.all(Array.from({ length: 8 }, () => poor.api("POST", "/v1/tasks", { command: "x", plugin: "echo" }, { "idempotency-key": "same" })));
    expect(new Set(answers.map((answer) => answer.body.task_id)).size).toBe(1);
    const more = await Promise.all(Array.from({ length: 5 }, () => poor.api("POST", "/v1/tasks", { command: "x", plugin: "echo" })));
    expect(more.map((answer) => answer.status).sort()).toEqual([202, 429, 429, 429, 429]);
  });

  it("a submit is accepted, can be read and cancelled, and `wake` rings for it when Redis is back", async () => {
    const submitted = await tenant.api("POST", "/v1/tasks", { command: "patience", plugin: "echo" });
    expect(submitted.status).toBe(202);
    const path = `/v1/tasks/${submitted.body.task_id}`;
    expect((await tenant.api("GET", path)).body.status).toBe("queued");
    const other = await tenant.api("POST", "/v1/tasks", { command: "never", plugin: "echo" });
    expect((await tenant.api("DELETE", `/v1/tasks/${other.body.task_id}`)).body.status).toBe("cancelled");
    await platform.runCron("wake");
    expect((await tenant.api("GET", path)).body.status).toBe("queued");

    second = await startRedis(folder, { persist: false, port: Number(new URL(platform.redis.url).port) });
    // `wake` gives every task ten seconds before it rings; the test lets the database think that they are over.
    await expect
      .poll(
        async () => {
          await platform.db.platform((tx) => sql`UPDATE tasks SET next_ring_at = now() WHERE status = 'queued'`.execute(tx));
          await platform.runCron("wake");
          return (await tenant.api("GET", `${path}?wait=2`)).body.status;
        },
        { timeout: 40_000, interval: 200 },
      )
      .toBe("success");
    expect((await tenant.api("GET", path)).body).toMatchObject({ result: "patience", execution_meta: { attempts: 1 } });
    expect((await tenant.api("GET", `/v1/tasks/${other.body.task_id}`)).body.status).toBe("cancelled");
    expect((await tenant.api("POST", "/v1/tasks", { command: "as ever", plugin: "echo" }, { prefer: "wait=20" })).body.status).toBe("success");
  });
});
