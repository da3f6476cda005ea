import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { PlanTier } from "../../shared/access/caller.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";
import { invoiceCsv } from "../../shared/metering/invoice-csv.ts";
import { planPricesFor } from "../../shared/metering/plan-prices.ts";
import { moveSubscriptions } from "../../shared/metering/subscriptions.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

const SECRET = "a secret that only the payment system knows";
const CHILD = fileURLToPath(new URL("close-child.ts", import.meta.url));
const run = promisify(execFile);

let platform: TestPlatform;
let receiver: Server;
/** What the payment system was sent, and what it answers. */
let heard: { body: string; headers: Record<string, string | string[] | undefined> }[];
let answerWith: number;
beforeAll(async () => {
  receiver = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      heard.push({ body: Buffer.concat(chunks).toString(), headers: request.headers });
      response.writeHead(answerWith).end();
    });
  }).listen(0, "127.0.0.1");
  await once(receiver, "listening");
  const address = receiver.address();
  const port = typeof address === "object" && address ? address.port : 0;
  platform = await startTestPlatform({ withBridge: false, env: { BILLING_EVENTS_URL: `http://127.0.0.1:${port}/events`, BILLING_EVENTS_SECRET: SECRET } });
  await platform.db.call("INSERT INTO plugins (id, name, category) VALUES (gen_random_uuid(), 'a', 'testing'), (gen_random_uuid(), 'b', 'testing')", []);
});
afterAll(async () => {
  await platform?.stop();
  receiver?.close();
});
beforeEach(() => {
  heard = [];
  answerWith = 204;
});
afterEach(() => {
  globalThis.aauFailpoint = undefined;
});

const JANUARY = "2026-01-01";
const FEBRUARY = "2026-02-01";
const { version } = planPricesFor(JANUARY);

/** A tenant since January 2026 that has subscribed to `a` and `b` since then. */
async function oldTenant(tier: "starter" | "professional" | "enterprise" = "professional"): Promise<TestTenant> {
  const tenant = await platform.tenant({ tier, subscriptions: { a: 1000, b: 1000 } });
  await platform.db.call("UPDATE tenants SET created_at = '2026-01-01T00:00:00Z' WHERE id = $1", [tenant.tenantId]);
  await platform.db.call("UPDATE tenant_plans SET from_at = '2026-01-01T00:00:00Z' WHERE tenant_id = $1", [tenant.tenantId]);
  await platform.db.call("UPDATE subscriptions SET started_at = '2025-12-31T12:00:00Z', overage_enabled = true WHERE tenant_id = $1", [tenant.tenantId]);
  return tenant;
}

/** The operator changes the tenant's plan, as if it had been on that day. */
async function becomes({ tenantId }: TestTenant, tier: PlanTier, day: string): Promise<void> {
  await platform.db.platform(async (tx) => {
    await tx.updateTable("tenants").set({ plan_tier: tier }).where("id", "=", tenantId).execute();
    await moveSubscriptions(tx, tenantId, tier, "operator");
  });
  const values = [tenantId, `${day}T10:00:00Z`];
  await platform.db.call("UPDATE tenant_plans SET from_at = $2 WHERE tenant_id = $1 AND from_at = (SELECT max(from_at) FROM tenant_plans WHERE tenant_id = $1)", values);
  await platform.db.call("UPDATE subscriptions SET started_at = $2 WHERE tenant_id = $1 AND started_at > now() - interval '1 hour'", values);
  await platform.db.call("UPDATE subscriptions SET ended_at = $2 WHERE tenant_id = $1 AND ended_at > now() - interval '1 hour'", values);
}

/** Usage as settling leaves it: the events, the row of the day that counts them, under the plan that the tenant is on, and the quota of the month. */
async function use({ tenantId }: TestTenant, day: string, { plugin = "a", count = 1, cost = 0, overage = 0, model = "claude-haiku-4-5" } = {}): Promise<void> {
  await platform.db.call(
    `INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, status, model, latency_ms, cost_micro_usd, routing_method, envelope_version, billable, timestamp)
     SELECT $1, $2, '1.0.0', gen_random_uuid(), 'main', 1, 'live', 'success', $5, 1, CASE WHEN n = 1 THEN $4::bigint ELSE 0 END, 'explicit', '1.0', true, $6::date + interval '12 hours' FROM generate_series(1, $3::int) n`,
    [tenantId, plugin, count, cost, model, day],
  );
  await platform.db.call(
    `INSERT INTO usage_days AS y (tenant_id, day, plugin_name, environment, model, price_version, plan_tier, executions, billable, overage, input_tokens, cost_micro_usd)
     SELECT $1, $2, $3, 'live', $4, '2026-10-24', plan_tier, $5, $5, $6, 1000, $7 FROM tenants WHERE id = $1
     ON CONFLICT (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, plan_tier) WHERE invoice_id IS NULL
     DO UPDATE SET executions = y.executions + EXCLUDED.executions, billable = y.billable + EXCLUDED.billable, overage = y.overage + EXCLUDED.overage, cost_micro_usd = y.cost_micro_usd + EXCLUDED.cost_micro_usd`,
    [tenantId, day, plugin, model, count, overage, cost],
  );
  await platform.db.call(
    `INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, used) VALUES ($1, $2, 'live', date_trunc('month', $3::date), $4)
     ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET used = u.used + EXCLUDED.used`,
    [tenantId, plugin, day, count],
  );
}

const close = (tenant: TestTenant, month = JANUARY) => closeMonth(platform.db, tenant.tenantId, month);
async function invoiceOf(tenant: TestTenant, month = JANUARY) {
  const { invoices } = (await tenant.api("GET", "/v1/invoices?limit=100")).body;
  const found = invoices.find(({ period_start }: { period_start: string }) => period_start === month);
  return found ? (await tenant.api("GET", `/v1/invoices/${found.invoice_id}`)).body : null;
}
const shown = (invoice: { lines: { kind: string; plugin: string | null; quantity: number; amount_usd: string }[] }) =>
  invoice.lines.map(({ kind, plugin, quantity, amount_usd }) => [kind, plugin, quantity, amount_usd]);
const countOf = async (table: string) => Number((await platform.db.call<{ n: string }>(`SELECT count(*) AS n FROM ${table}`, []))[0]?.n);

describe("closing a month", () => {
  it("makes its lines of fees by the day, the discount for several plugins, executions, overage and what the models cost", async () => {
    const tenant = await oldTenant();
    await platform.db.call("UPDATE subscriptions s SET ended_at = '2026-01-10T15:00:00Z' FROM plugins p WHERE p.id = s.plugin_id AND p.name = 'b' AND s.tenant_id = $1", [
      tenant.tenantId,
    ]);
    await use(tenant, "2026-01-05", { count: 12, overage: 2, cost: 1_234_567 });
    await use(tenant, "2026-01-20", { count: 3, cost: 1 });
    await use(tenant, "2026-02-01", { count: 7, cost: 99 });
    expect(await close(tenant)).toMatchObject({ outcome: "closed" });
    const invoice = await invoiceOf(tenant);
    expect(shown(invoice)).toEqual([
      ["plugin_fee", "a", 31, "49.000000"],
      ["plugin_fee", "b", 10, "15.806451"],
      // 10 days with two plugins, a tenth of both fees.
      ["bundle_discount", null, 1, "-3.161291"],
      ["executions", "a", 13, "0.000000"],
      ["overage", "a", 2, "0.040000"],
      ["model_usage", "a", 2000, "1.234568"],
    ]);
    expect(invoice).toMatchObject({
      number: 1,
      tier: "professional",
      period_start: "2026-01-01",
      period_end: "2026-01-31",
      currency: "USD",
      total_usd: "62.919728",
      due_usd: "62.910000",
    });
    expect(invoice.lines.map(({ price_version }: { price_version: string }) => price_version)).toEqual([version, version, version, version, version, "2026-10-24"]);
  });

  it("of an enterprise tenant prices executions by their number in the month", async () => {
    const tenant = await oldTenant("enterprise");
    await use(tenant, "2026-01-05", { count: 10_000 });
    await use(tenant, "2026-01-06", { plugin: "b", count: 2_500 });
    await close(tenant);
    expect(shown(await invoiceOf(tenant)).slice(0, 3)).toEqual([
      ["plan_fee", null, 31, "1500.000000"],
      ["volume", null, 10_000, "150.000000"],
      ["volume", null, 2_500, "25.000000"],
    ]);
  });

  it("bills a plan by the days that it held, and executions by the plan that they were settled under", async () => {
    const tenant = await oldTenant("enterprise");
    await use(tenant, "2026-01-05", { count: 50_000 });
    await becomes(tenant, "professional", "2026-01-21");
    await use(tenant, "2026-01-25", { count: 5, overage: 3 });
    await becomes(tenant, "starter", "2026-02-04");
    await use(tenant, "2026-02-05", { count: 2 });
    await close(tenant);
    const january = await invoiceOf(tenant);
    expect(january.tier).toBe("professional");
    expect(shown(january).filter(([kind]) => kind !== "model_usage")).toEqual([
      ["plan_fee", null, 20, "967.741935"],
      ["plugin_fee", "a", 11, "17.387096"],
      ["plugin_fee", "b", 11, "17.387096"],
      ["bundle_discount", null, 1, "-3.477420"],
      ["executions", "a", 2, "0.000000"],
      ["overage", "a", 3, "0.060000"],
      ["volume", null, 10_000, "150.000000"],
      ["volume", null, 40_000, "400.000000"],
    ]);
    await use(tenant, "2026-01-05", { count: 1 });
    await platform.db.call("UPDATE usage_days SET plan_tier = 'enterprise' WHERE tenant_id = $1 AND day = '2026-01-05' AND invoice_id IS NULL", [tenant.tenantId]);
    await close(tenant, FEBRUARY);
    const february = await invoiceOf(tenant, FEBRUARY);
    expect(february.tier).toBe("starter");
    expect(february.lines.filter(({ kind }: { kind: string }) => kind === "plan_fee" || kind === "executions" || kind === "volume")).toMatchObject([
      { kind: "executions", quantity: 2 },
      { kind: "volume", quantity: 1, amount_usd: "0.015000" },
    ]);
  });

  it("bills a subscription whose quota was drawn on to the month's end, though it was ended before, and no day twice", async () => {
    const tenant = await oldTenant();
    const ends = (plugin: string, at: string) =>
      platform.db.call("UPDATE subscriptions s SET ended_at = $3 FROM plugins p WHERE p.id = s.plugin_id AND p.name = $2 AND s.tenant_id = $1 AND s.ended_at IS NULL", [
        tenant.tenantId,
        plugin,
        at,
      ]);
    const begins = (plugin: string, at: string) =>
      platform.db.call("INSERT INTO subscriptions (id, tenant_id, plugin_id, tier, started_at) SELECT gen_random_uuid(), $1, id, 'professional', $3 FROM plugins WHERE name = $2", [
        tenant.tenantId,
        plugin,
        at,
      ]);
    await ends("a", "2026-01-02T09:00:00Z");
    await use(tenant, "2026-01-02", { count: 1000 });
    await begins("a", "2026-01-12T00:00:00Z");
    await ends("a", "2026-01-12T01:00:00Z");
    // Of this one nothing was used while it stood first.
    await ends("b", "2026-01-04T09:00:00Z");
    await begins("b", "2026-01-20T00:00:00Z");
    await ends("b", "2026-01-22T00:00:00Z");
    await use(tenant, "2026-01-21", { plugin: "b", count: 1 });
    await close(tenant);
    const fees = (invoice: { lines: { kind: string; plugin: string | null; quantity: number; amount_usd: string }[] }) =>
      shown(invoice).filter(([kind]) => kind === "plugin_fee" || kind === "bundle_discount");
    expect(fees(await invoiceOf(tenant))).toEqual([
      ["plugin_fee", "a", 31, "49.000000"],
      // Four days of the first, and from the 20th on.
      ["plugin_fee", "b", 16, "25.290322"],
      ["bundle_discount", null, 1, "-5.058065"],
    ]);
    // The month that follows is another quota.
    expect((await close(tenant, FEBRUARY))?.outcome).toBe("empty");
  });

  it("bills a subscription to no more than the plugin's own end", async () => {
    const tenant = await oldTenant();
    await platform.db.call("INSERT INTO plugins (id, name, category, status, sunset_at) VALUES (gen_random_uuid(), 'gone', 'testing', 'sunset', '2026-01-10T00:00:00Z')", []);
    await platform.db.call(
      `UPDATE subscriptions s SET plugin_id = g.id, ended_at = '2026-01-10T00:00:05Z' FROM plugins g, plugins b WHERE s.tenant_id = $1 AND s.plugin_id = b.id AND b.name = 'b' AND g.name = 'gone'`,
      [tenant.tenantId],
    );
    await use(tenant, "2026-01-05", { plugin: "gone", count: 3 });
    await close(tenant);
    expect(shown(await invoiceOf(tenant)).slice(0, 2)).toEqual([
      ["plugin_fee", "a", 31, "49.000000"],
      ["plugin_fee", "gone", 10, "15.806451"],
    ]);
  });

  it("twice, and in three places at once, gives one invoice", async () => {
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5_000 });
    const outcomes = await Promise.all([1, 2, 3].map(() => close(tenant)));
    expect(outcomes.map((one) => one?.outcome).sort()).toEqual(["closed", "known", "known"]);
    const before = await invoiceOf(tenant);
    const rows = [await countOf("invoices"), await countOf("invoice_lines")];
    expect((await close(tenant))?.outcome).toBe("known");
    expect([await countOf("invoices"), await countOf("invoice_lines")]).toEqual(rows);
    expect(await invoiceOf(tenant)).toEqual(before);
  });

  it("that dies before its commit has done nothing, and after it everything", async () => {
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5_000 });
    globalThis.aauFailpoint = (name) => (name === "billing.before_commit" ? Promise.reject(new Error("killed")) : Promise.resolve());
    await expect(close(tenant)).rejects.toThrow("killed");
    expect(await invoiceOf(tenant)).toBeNull();
    globalThis.aauFailpoint = (name) => (name === "billing.after_commit" ? Promise.reject(new Error("killed")) : Promise.resolve());
    await expect(close(tenant)).rejects.toThrow("killed");
    globalThis.aauFailpoint = undefined;
    const invoice = await invoiceOf(tenant);
    expect((await close(tenant))?.outcome).toBe("known");
    expect(await invoiceOf(tenant)).toEqual(invoice);
  });

  it("by a process that is killed in the middle leaves the month to another", async () => {
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5_000 });
    const child = (point: string) =>
      run(process.execPath, ["--import", "tsx", CHILD, tenant.tenantId, JANUARY], { env: { ...process.env, DATABASE_URL: platform.env.DATABASE_URL ?? "", AAU_FP: point } });
    await expect(child("billing.before_commit:kill")).rejects.toMatchObject({ signal: "SIGKILL" });
    expect(await invoiceOf(tenant)).toBeNull();
    await Promise.allSettled([child("billing.after_commit:kill"), close(tenant)]);
    const invoice = await invoiceOf(tenant);
    expect(invoice).toMatchObject({ number: 1, lines: expect.any(Array) });
    expect((await close(tenant))?.outcome).toBe("known");
    expect(await invoiceOf(tenant)).toEqual(invoice);
  });

  it("puts usage that is settled after its month was closed on the next invoice, with its month, and on no other", async () => {
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { count: 2, cost: 100 });
    await close(tenant);
    const january = await invoiceOf(tenant);
    await use(tenant, "2026-01-05", { count: 3, cost: 40 });
    await use(tenant, "2026-02-03", { count: 1, cost: 7 });
    await close(tenant, FEBRUARY);
    expect(await invoiceOf(tenant)).toEqual(january);
    const february = await invoiceOf(tenant, FEBRUARY);
    expect(february.lines.filter(({ kind }: { kind: string }) => kind === "model_usage" || kind === "executions")).toMatchObject([
      { kind: "executions", origin: "2026-01", quantity: 3, description: "a: executions that the plan includes, late from 2026-01" },
      { kind: "executions", origin: "2026-02", quantity: 1 },
      { kind: "model_usage", origin: "2026-01", amount_usd: "0.000040" },
      { kind: "model_usage", origin: "2026-02", amount_usd: "0.000007" },
    ]);
    expect((await close(tenant, "2026-03-01"))?.outcome).toBe("closed");
    expect(shown(await invoiceOf(tenant, "2026-03-01")).map(([kind]) => kind)).toEqual(["plugin_fee", "plugin_fee", "bundle_discount"]);
  });

  it("goes month by month, makes no invoice of a month without anything, and numbers without gaps", async () => {
    const tenant = await oldTenant();
    await platform.db.call("UPDATE subscriptions SET started_at = '2026-02-15T00:00:00Z' WHERE tenant_id = $1", [tenant.tenantId]);
    expect((await close(tenant, FEBRUARY))?.outcome).toBe("out_of_order");
    expect((await close(tenant))?.outcome).toBe("empty");
    expect((await close(tenant, FEBRUARY))?.outcome).toBe("closed");
    expect(await invoiceOf(tenant, FEBRUARY)).toMatchObject({ number: 1 });
    expect(await close(tenant, "2026-03-01")).toMatchObject({ outcome: "closed" });
    expect(await invoiceOf(tenant, "2026-03-01")).toMatchObject({ number: 2 });
  });

  it("does not happen while the events say something else than what was counted; other tenants are closed all the same", async () => {
    const [wrong, right] = [await oldTenant(), await oldTenant()];
    await use(wrong, "2026-01-05", { count: 2, cost: 100 });
    await platform.db.call("DELETE FROM execution_events WHERE ctid = (SELECT ctid FROM execution_events WHERE tenant_id = $1 LIMIT 1)", [wrong.tenantId]);
    await expect(close(wrong)).rejects.toMatchObject({ code: "AAU02" });
    await platform.runCron("billing-aggregate");
    expect(await invoiceOf(wrong)).toBeNull();
    const months = (await right.api("GET", "/v1/invoices?limit=100")).body.invoices.map(({ period_start }: { period_start: string }) => period_start);
    expect(months.toReversed()[0]).toBe(JANUARY);
    const over = `${new Date(Date.now() - 3_600_000).toISOString().slice(0, 7)}-01`;
    expect(months).not.toContain(over);
    const monthsOver = (Number(over.slice(0, 4)) - 2026) * 12 + Number(over.slice(5, 7)) - 1;
    expect(months).toHaveLength(monthsOver);
    await platform.runCron("billing-aggregate");
    expect((await right.api("GET", "/v1/invoices?limit=100")).body.invoices).toHaveLength(monthsOver);
  });
});

describe("the open month", () => {
  it("can be read as it would be closed now, and then is closed as it was read", async () => {
    const tenant = await platform.tenant({ subscriptions: { a: 10 } });
    const today = new Date().toISOString().slice(0, 10);
    await use(tenant, today, { count: 2, cost: 77 });
    const preview = (await tenant.api("GET", "/v1/invoices/preview")).body;
    await close(tenant, `${today.slice(0, 7)}-01`);
    const { invoice_id, number, closed_at, ...closed } = await invoiceOf(tenant, `${today.slice(0, 7)}-01`);
    expect(closed).toEqual(preview);
    expect([number, invoice_id, closed_at]).toEqual([1, expect.stringMatching(/^inv_/), expect.any(String)]);
  });
});

describe("an invoice", () => {
  it("is a page for those who ask for one, with every name escaped and nothing from elsewhere", async () => {
    const tenant = await oldTenant();
    await platform.db.call("UPDATE tenants SET name = $2 WHERE id = $1", [tenant.tenantId, `<script>alert("Brown & Sons")</script>`]);
    await use(tenant, "2026-01-05", { count: 1234, cost: 1_234_567 });
    await close(tenant);
    const { invoice_id } = await invoiceOf(tenant);
    const byHeader = await tenant.api("GET", `/v1/invoices/${invoice_id}`, undefined, { accept: "text/html,application/xhtml+xml" });
    const byQuery = await tenant.api("GET", `/v1/invoices/${invoice_id}?format=html`);
    expect(byHeader.text).toBe(byQuery.text);
    expect(byHeader.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(byHeader.headers.get("content-security-policy")).toMatch(/^default-src 'none'; style-src 'sha256-/);
    expect(byHeader.text).toContain("&lt;script&gt;alert(&quot;Brown &amp; Sons&quot;)");
    expect(byHeader.text).not.toMatch(/<script|https?:/);
    for (const said of ["No. 0001", "1 – 31 January 2026", "1,234 executions", "$1.234567", "Amount due"]) expect(byHeader.text).toContain(said);
    const json = await tenant.api("GET", `/v1/invoices/${invoice_id}?format=json`, undefined, { accept: "text/html" });
    expect(json.body.invoice_id).toBe(invoice_id);
    expectRefusal(await tenant.api("GET", `/v1/invoices/${invoice_id}?format=pdf`), "INVALID_INPUT");
  });

  it("is CSV that no spreadsheet takes for formulas", async () => {
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5, model: "=cmd|' /C calc'!A0" });
    await close(tenant);
    const { invoice_id } = await invoiceOf(tenant);
    const answer = await tenant.api("GET", `/v1/invoices/${invoice_id}?format=csv`);
    expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8; header=present");
    expect(answer.headers.get("content-disposition")).toBe('attachment; filename="invoice-2026-01.csv"');
    const lines = answer.text.split("\r\n");
    expect(lines[0]).toBe("kind,description,plugin,model,origin,quantity,unit,unit_price_usd,amount_usd,price_version");
    expect(lines.at(-2)).toContain(",'=cmd|' /C calc'!A0,");
    // The minus of a discount is a number and stays one.
    expect(answer.text).toMatch(/,-\d+\.\d{6},/);
    const cell = (text: string) =>
      invoiceCsv({ lines: [{ description: text } as never] })
        .split("\r\n")[1]
        ?.split(",")[1];
    for (const bad of ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", " =1"]) expect(cell(bad), bad).toBe(`'${bad}`);
    expect(cell('say "no"')).toBe('"say ""no"""');
  });
});

describe("the payment system", () => {
  const events = () => heard.map(({ body }) => JSON.parse(body));
  /** What other tests have closed is announced, and all that is due comes now. */
  async function nothingDue(): Promise<void> {
    await platform.db.call("UPDATE invoices SET announced_at = now() WHERE announced_at IS NULL", []);
  }
  const allDue = () => platform.db.call("UPDATE invoices SET announce_at = now() - interval '1 second' WHERE announced_at IS NULL", []);

  it("is told of each closed invoice by a signed CloudEvent, and of none twice", async () => {
    await nothingDue();
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5_000 });
    await close(tenant);
    await platform.runCron("invoice-announce");
    const invoice = await invoiceOf(tenant);
    const [first] = heard;
    expect(events()).toEqual([
      {
        specversion: "1.0",
        id: invoice.invoice_id,
        source: expect.stringMatching(/^http/),
        type: "io.aau.invoice.closed",
        subject: invoice.invoice_id,
        time: invoice.closed_at,
        datacontenttype: "application/json",
        data: { tenant_id: expect.stringMatching(/^ten_/), ...invoice },
      },
    ]);
    expect(first?.headers["content-type"]).toContain("application/cloudevents+json");
    expect(first?.headers["x-aau-signature"]).toBe(
      `sha256=${createHmac("sha256", SECRET)
        .update(first?.body ?? "")
        .digest("hex")}`,
    );
    await allDue();
    await platform.runCron("invoice-announce");
    expect(heard).toHaveLength(1);
  });

  it("that is away is told later; one whose answer was lost is told again under the same id", async () => {
    await nothingDue();
    const tenant = await oldTenant();
    await use(tenant, "2026-01-05", { cost: 5_000 });
    await close(tenant);
    answerWith = 503;
    await platform.runCron("invoice-announce");
    await platform.runCron("invoice-announce");
    expect(heard, "not at once again").toHaveLength(1);
    answerWith = 204;
    globalThis.aauFailpoint = (name) => (name === "announce.before_mark" ? Promise.reject(new Error("killed")) : Promise.resolve());
    await allDue();
    await platform.runCron("invoice-announce");
    globalThis.aauFailpoint = undefined;
    await allDue();
    await platform.runCron("invoice-announce");
    await allDue();
    await platform.runCron("invoice-announce");
    expect(new Set(events().map(({ id }) => id)).size).toBe(1);
    expect(heard).toHaveLength(3);
  });
});
