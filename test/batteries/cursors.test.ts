import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, byName, GUARDED, operationOf, pathOf } from "./declared.ts";
import { expectRefusal } from "./refusal.ts";
import { expectNothingWritten } from "./row-counts.ts";

const LISTS = GUARDED.filter((fn) => (operationOf(fn).parameters ?? []).some((p) => p.name === "cursor"));

let platform: TestPlatform;
let own: TestTenant;
let foreign: TestTenant;
/** Each tenant's endpoint, with deliveries of its own to list. */
const webhooks = new Map<TestTenant, string>();
const listOf = (tenant: TestTenant, fn: (typeof LISTS)[number]) => pathOf(fn, () => webhooks.get(tenant) ?? "");
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  [own, foreign] = [await platform.tenant(), await platform.tenant()];
  for (const tenant of [own, foreign]) {
    for (let i = 0; i < 3; i++) {
      await tenant.mintKey();
      await tenant.api("POST", "/v1/users", { email: `user-${i}@example.com` });
      await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
      await tenant.api("POST", "/v1/tasks", { command: `number ${i}`, plugin: "echo" });
      await tenant.api("POST", "/v1/knowledge", { content: `Passage number ${i}.` });
    }
    await plantMonths(tenant);
    const { webhook_id } = (await tenant.api("POST", "/v1/webhooks", { url: "https://hooks.aau.io/", events: ["quota.warning"] })).body;
    for (let i = 0; i < 3; i++) await platform.db.call("SELECT enqueue_webhook_event($1, 'quota.warning', $2, '{}')", [tenant.tenantId, `event ${i}`]);
    webhooks.set(tenant, webhook_id);
  }
});
afterAll(() => platform?.stop());

/** Three subscriptions, one after the other, and three closed months. */
async function plantMonths({ tenantId }: TestTenant): Promise<void> {
  await platform.db.call(
    `INSERT INTO subscriptions (id, tenant_id, plugin_id, tier, started_at, ended_at)
     SELECT gen_random_uuid(), $1, p.id, 'professional', now() - m * interval '1 month', now() - m * interval '1 month' FROM plugins p, generate_series(1, 3) m`,
    [tenantId],
  );
  await platform.db.call(
    `INSERT INTO invoices (id, tenant_id, number, period_start, period_end, tenant_name, plan_tier, price_version, prices, total_micro_usd)
     SELECT gen_random_uuid(), $1, m, make_date(2026, m, 1), make_date(2026, m, 28), 'somebody', 'professional', 'plans-2026-01', '{}', 1 FROM generate_series(1, 3) m`,
    [tenantId],
  );
}

async function firstCursor(tenant: TestTenant, path: string, filter = ""): Promise<string> {
  const page = await tenant.api("GET", `${path}?limit=1${filter}`);
  expect(page.body.next_cursor).toEqual(expect.any(String));
  return page.body.next_cursor;
}

describe.each(byName(LISTS))("%s", (_, fn) => {
  const open = (cursor: string, rest = "") => own.api(addressOf(fn).method, `${listOf(own, fn)}?limit=1&cursor=${encodeURIComponent(cursor)}${rest}`);

  it("goes on with its own cursor, as often as it is sent", async () => {
    const cursor = await firstCursor(own, listOf(own, fn));
    const [first, again] = [await open(cursor), await open(cursor)];
    expect(first.status).toBe(200);
    expect(again.body).toEqual(first.body);
  });

  it("refuses every cursor that it did not make for this tenant, this list and these filters", async () => {
    const cursor = await firstCursor(own, listOf(own, fn));
    const bytes = Buffer.from(cursor, "base64url");
    const flipped = Array.from({ length: bytes.length }, (_, at) => {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] ?? 0) ^ 1;
      return copy.toString("base64url");
    });
    const others = await Promise.all(LISTS.filter((other) => other !== fn).map((other) => firstCursor(own, listOf(own, other))));
    const wrong = [
      ...flipped,
      ...others,
      await firstCursor(foreign, listOf(foreign, fn)),
      "",
      "x",
      "null",
      "0",
      cursor.slice(0, -1),
      `${cursor}A`,
      `${cursor}AAAA`,
      `${cursor}!`,
      ` ${cursor}`,
      `${cursor}=`,
      cursor.slice(0, 8),
      "A".repeat(512),
      "A".repeat(513),
      "%00",
      "'--",
      "\u{1f600}",
    ];
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const text of wrong) expectRefusal(await open(text), "INVALID_INPUT", text);
    });
  });

  it("refuses limits that are none", async () => {
    for (const limit of ["0", "-1", "101", "1000", "1.5", "1e2", "ten", "", "0x10", "%2010", "٣"]) {
      expectRefusal(await own.api(addressOf(fn).method, `${listOf(own, fn)}?limit=${limit}`), "INVALID_INPUT", limit);
    }
  });
});

it("a cursor of task-list belongs to its filters", async () => {
  const cursor = await firstCursor(own, "/v1/tasks", "&plugin=echo");
  expect((await own.api("GET", `/v1/tasks?limit=1&plugin=echo&cursor=${cursor}`)).status).toBe(200);
  for (const filter of ["", "&plugin=other", "&plugin=echo&status=queued", "&status=queued"])
    expectRefusal(await own.api("GET", `/v1/tasks?limit=1${filter}&cursor=${cursor}`), "INVALID_INPUT", filter);
});

it("there are lists to hold to this", () => {
  expect(LISTS.length).toBeGreaterThanOrEqual(2);
});
