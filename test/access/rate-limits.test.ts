import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { TAKE } from "../../shared/access/admission.ts";
import { localWindows } from "../../shared/access/local-windows.ts";
import { rateLimitsOf } from "../../shared/access/rate-limits.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { failer } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
let redis: ReturnType<typeof connectRedis>;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, failer], withBridge: false });
  redis = connectRedis(platform.redis.url);
  await vi.waitFor(() => expect(redis.status).toBe("ready"));
});
afterAll(async () => {
  redis?.disconnect();
  await platform?.stop();
});

const WINDOW_MS = 60_000;
/** The limiter's own code, with the clock in the test's hand. */
const TAKE_AT = `${TAKE}\nreturn take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))`;

/** What is right by definition: the admitted ones within the window that ends now are counted. */
function model(limit: number) {
  const admitted: number[] = [];
  return (now: number) => {
    const recent = admitted.filter((at) => at > now - WINDOW_MS);
    const isAdmitted = recent.length < limit;
    if (isAdmitted) admitted.push(now);
    return { admitted: isAdmitted, remaining: isAdmitted ? limit - recent.length - 1 : 0, resetMs: (recent[0] ?? now) + WINDOW_MS - now, all: admitted };
  };
}

const steps = fc.array(
  fc.oneof(fc.constant(0), fc.constant(1), fc.integer({ min: 0, max: 2_000 }), fc.integer({ min: WINDOW_MS - 2, max: WINDOW_MS + 2 }), fc.integer({ min: 0, max: 2 * WINDOW_MS })),
  { minLength: 1, maxLength: 60 },
);
const run = { numRuns: 120, seed: 20_260_101 };

function expectNoWindowHolds(times: readonly number[], limit: number): void {
  for (const end of times) expect(times.filter((at) => at > end - WINDOW_MS && at <= end).length).toBeLessThanOrEqual(limit);
}

describe("the sliding window", () => {
  it("in Redis admits exactly what the definition admits", async () => {
    let count = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 6 }), steps, async (limit, deltas) => {
        const key = `rate:model:${++count}`;
        const expected = model(limit);
        let now = 1_800_000_000_000;
        let all: number[] = [];
        for (const delta of deltas) {
          now += delta;
          const said = await redis.eval(TAKE_AT, 1, key, limit, now, WINDOW_MS);
          const right = expected(now);
          all = right.all;
          expect(said).toEqual([right.admitted ? 1 : 0, right.remaining, right.resetMs]);
        }
        expectNoWindowHolds(all, limit);
      }),
      run,
    );
  });

  it("of one process admits exactly what the definition admits", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), steps, (limit, deltas) => {
        let now = 5;
        const windows = localWindows(WINDOW_MS, () => now);
        const expected = model(limit);
        for (const delta of deltas) {
          now += delta;
          const { admitted, remaining, resetMs } = expected(now);
          expect(windows.take("tenant", limit)).toEqual({ admitted, limit, remaining, resetMs });
        }
      }),
      run,
    );
  });

  it("leaves nothing behind in Redis when nobody comes any more", async () => {
    await redis.eval(TAKE_AT, 1, "rate:model:left", 3, Date.now(), WINDOW_MS);
    const left = await redis.pttl("rate:model:left");
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(WINDOW_MS);
  });
});

function expectLimited(answer: ApiAnswer): void {
  expectRefusal(answer, "RATE_LIMITED");
  const wait = Number(answer.headers.get("retry-after"));
  expect(Number.isInteger(wait) && wait >= 1 && wait <= 60, `Retry-After ${wait}`).toBe(true);
}

describe("a tenant's limit", () => {
  it("holds for requests that come at once, and counts them down", async () => {
    const tenant = await platform.tenant({ settings: { rate_limits: { per_tenant: 20, per_plugin: 1_000 } } });
    const answers = await Promise.all(Array.from({ length: 60 }, () => tenant.api("GET", "/v1/tasks")));
    const good = answers.filter((answer) => answer.status === 200);
    expect(good).toHaveLength(20);
    expect(good.map((answer) => Number(answer.headers.get("x-ratelimit-remaining"))).sort((a, b) => b - a)).toEqual(Array.from({ length: 20 }, (_, i) => 19 - i));
    for (const answer of answers) {
      expect(answer.headers.get("x-ratelimit-limit")).toBe("20");
      if (answer.status === 200) continue;
      expectLimited(answer);
      expect(answer.headers.get("x-ratelimit-remaining")).toBe("0");
    }
  });

  it("is one for all keys of the tenant, and each tenant's own", async () => {
    const settings = { rate_limits: { per_tenant: 4, per_plugin: 1_000 } };
    const [one, other] = [await platform.tenant({ settings }), await platform.tenant({ settings })];
    const second = await one.mintKey();
    for (const key of [one.key, second.key, one.key, second.key]) expect((await platform.call("GET", "/v1/tasks", { key })).status).toBe(200);
    for (const key of [one.key, second.key]) expectLimited(await platform.call("GET", "/v1/tasks", { key }));
    expect((await other.api("GET", "/v1/tasks")).status).toBe(200);
  });

  it("counts refused requests too, so that guessing is limited", async () => {
    const tenant = await platform.tenant({ settings: { rate_limits: { per_tenant: 3, per_plugin: 1_000 } } });
    for (let i = 0; i < 3; i++) expect((await tenant.api("GET", "/v1/tasks/x")).status).toBe(404);
    expectLimited(await tenant.api("GET", "/v1/tasks/x"));
  });
});

describe("a plugin's limit", () => {
  const tasksOf = async (tenantId: string) => (await platform.db.call<{ n: number }>("SELECT count(*)::int AS n FROM tasks WHERE tenant_id = $1", [tenantId]))[0]?.n;

  it("is a second stage: other plugins and other calls go on", async () => {
    const tenant = await platform.tenant({ settings: { rate_limits: { per_tenant: 100, per_plugin: 5 } } });
    const answers = await Promise.all(Array.from({ length: 12 }, () => tenant.api("POST", "/v1/tasks", { command: "x", plugin: "echo" })));
    expect(answers.filter((answer) => answer.status === 202)).toHaveLength(5);
    for (const answer of answers.filter(({ status }) => status !== 202)) expectLimited(answer);
    expect(await tasksOf(tenant.tenantId)).toBe(5);
    expect((await tenant.api("POST", "/v1/tasks", { command: "x", plugin: "failer" })).status).toBe(202);
    expect((await tenant.api("GET", "/v1/tasks")).status).toBe(200);
  });

  it("counts a routed command once, also when its route is cached", async () => {
    const tenant = await platform.tenant({ settings: { rate_limits: { per_tenant: 100, per_plugin: 4 } } });
    const submit = () => tenant.api("POST", "/v1/tasks", { command: "Echo the given words back." });
    const statuses: number[] = [];
    const methods: string[] = [];
    for (let i = 0; i < 5; i++) {
      const answer = await submit();
      statuses.push(answer.status);
      if (answer.status === 202) methods.push(answer.body.routing.method);
    }
    expect(statuses).toEqual([202, 202, 202, 202, 429]);
    expect(methods).toEqual(["embedding", "cache", "cache", "cache"]);
  });
});

it("the tier sets the limits, and the tenant's settings go before it", () => {
  expect(rateLimitsOf("starter", {}).perPlugin).toBe(20);
  expect(rateLimitsOf("professional", {}).perPlugin).toBe(100);
  expect(rateLimitsOf("enterprise", { rate_limits: { per_plugin: 7 } })).toEqual({ perTenant: 6000, perPlugin: 7 });
  for (const broken of [null, [], { rate_limits: { per_plugin: 0 } }, { rate_limits: { per_plugin: "9" } }]) expect(rateLimitsOf("starter", broken).perPlugin).toBe(20);
});
