/** The list's families of keys, held against a Redis in which everything has been done once. */
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { REDIS_FAMILIES } from "../../shared/privacy/personal-data.ts";
import { failer, filer, waiter } from "../batteries/plugins.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let redis: Redis;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer, failer, waiter] });
  redis = new Redis(platform.redis.url);
  const own = await platform.tenant();
  const { key } = await own.mintKey({ userId: own.userId });
  const submit = (body: object, headers = {}) => platform.call("POST", "/v1/tasks", { key, body, headers: { prefer: "wait=20", ...headers } });
  for (const word of ["first", "second"]) await submit({ command: word, plugin: "echo", conversation_id: "talk" });
  await submit({ command: "Store the given words in a file" });
  await submit({ command: "fail", plugin: "failer" });
  const running = await submit({ command: "wait", plugin: "waiter" }, { prefer: "wait=0" });
  await own.api("DELETE", `/v1/tasks/${running.body.task_id}`);
  const revoked = await own.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  await own.api("DELETE", `/v1/api-keys/${revoked.body.id}`);
  await own.api("POST", "/v1/knowledge", { content: "A passage." });
  await platform.call("GET", "/v1/tasks", { key: `sk_live_${"0".repeat(32)}` });
});
afterAll(async () => {
  redis?.disconnect();
  await platform?.stop();
});

describe("the keys of Redis", () => {
  it("belong to the families of the list, and live no longer than it says", async () => {
    const seen = new Set<string>();
    for await (const keys of redis.scanStream()) {
      for (const key of keys) {
        const family = REDIS_FAMILIES.find(({ pattern }) => pattern.test(key));
        expect(
          family,
          `${key} belongs to no family: say in REDIS_FAMILIES of shared/privacy/personal-data.ts what it holds, how long it lives, and what an erasure does`,
        ).toBeDefined();
        seen.add(family?.name ?? "");
        if (!family || family.maxTtlSec === null) continue;
        const ttlMs = await redis.pttl(key);
        if (ttlMs === -2) continue;
        expect(ttlMs, `${key} ends by itself`).toBeGreaterThanOrEqual(0);
        expect(ttlMs, `${key} lives at most ${family.maxTtlSec} s`).toBeLessThanOrEqual(family.maxTtlSec * 1000);
      }
    }
    expect([...seen]).toEqual(expect.arrayContaining(["auth", "rate", "route", "circuit", "cancel", "conv", "stream"]));
  });
});
