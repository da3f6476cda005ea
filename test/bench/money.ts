/** (money) What a quota costs beside a bare INSERT, and what usage and the closing of a month cost with a million events of one tenant. */
import { randomUUID } from "node:crypto";
import pg from "pg";
import { openDatabase } from "../../shared/db/database.ts";
import { asId } from "../../shared/ids.ts";
import { closeMonth, closeMonths } from "../../shared/metering/close-months.ts";
import { reportUsage } from "../../shared/metering/usage-report.ts";
import { median, millis, ratio, table, whole } from "./figures.ts";
import noop from "./functions/plugins/bench-noop/bench-noop.ts";
import type { Part } from "./part.ts";
import type { Stage } from "./stage.ts";

const ADMISSIONS = 1_500;
const ROUNDS = 3;
const BATCH = 16;
const EVENTS = 1_000_000;
const READS = 200;
const CLOSINGS = 5;
const MANY = 1_000;

async function timed(times: number, work: () => Promise<unknown>): Promise<number[]> {
  const spent: number[] = [];
  for (let i = 0; i < times; i++) {
    const startedAt = performance.now();
    await work();
    spent.push(performance.now() - startedAt);
  }
  return spent;
}

/** One connection, one statement at a time: what one admission costs, not how many fit. */
async function admissions(stage: Stage, print: (text: string) => void): Promise<void> {
  const [tenant] = stage.tenants;
  const client = new pg.Client({ connectionString: stage.env.DATABASE_URL });
  await client.connect();
  const input = JSON.stringify({ command: "Review this change for security problems" });
  const floor = () =>
    client.query({
      name: "floor",
      text: "INSERT INTO floor_tasks (id, tenant_id, plugin, input, status) VALUES ($1, $2, $3, $4, 'queued')",
      values: [randomUUID(), tenant?.tenantId, noop.name, input],
    });
  const task = (place: number) => ({
    ...{ place, tenant: tenant?.tenantId, id: randomUUID(), user: null, key: null, environment: "live", conversation: null, plugin: noop.name, method: "explicit", confidence: 1 },
    ...{ priority: "normal", max_cost: null, deadline: new Date(Date.now() + 3_600_000), traceparent: "", request: "req", idempotency_key: null, request_sha256: null },
    ...{ embedding: null, embedding_model: null, plan: [{ id: "main", plugin: noop.name, version: "1.0.0", needs: [] }], input: JSON.parse(input) },
  });
  const admit = (count: number) => () =>
    client.query({ name: "admit", text: "SELECT * FROM admit_tasks($1)", values: [JSON.stringify(Array.from({ length: count }, (_, place) => task(place)))] });
  const contenders = [
    { name: "floor: one INSERT", each: 1, run: floor },
    { name: "admission under a quota", each: 1, run: admit(1) },
    { name: `${BATCH} admissions in one statement`, each: BATCH, run: admit(BATCH) },
  ];
  await stage.db.query("UPDATE subscriptions SET quota_limit = 2000000000 WHERE tenant_id = $1", [tenant?.tenantId]);
  const medians = new Map<string, number[]>();
  for (let round = 0; round <= ROUNDS; round++) {
    await stage.clear();
    for (const { name, each, run } of contenders) {
      const spent = await timed(round === 0 ? 200 : Math.ceil(ADMISSIONS / each), run);
      if (round > 0) medians.set(name, [...(medians.get(name) ?? []), median(spent) / each]);
    }
  }
  await client.end();
  const base = median(medians.get(contenders[0]?.name ?? "") ?? []);
  print(
    table(
      ["each, p50", "time", "of the floor's"],
      contenders.map(({ name }) => [name, millis(median(medians.get(name) ?? [])), ratio(median(medians.get(name) ?? []) / base)]),
    ),
  );
}

/** Events of the whole of last month, of four plugins and five keys, and the rows that settling would have kept of them. */
async function fill(stage: Stage, tenantId: string, events: number): Promise<void> {
  const series = `generate_series(1, ${events}) n, LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date - 1 - n % 28 AS day) d`;
  await stage.db.query(
    `INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, status, model, tokens_used, input_tokens, output_tokens, latency_ms,
        cost_micro_usd, routing_method, envelope_version, billable, timestamp)
     SELECT $1, 'plugin-' || n % 4, '1.0.0', gen_random_uuid(), 'main', 1, 'live', 'success', 'claude-sonnet-5-5', 1200, 1000, 200, 900, 4000 + n % 100, 'explicit', '1.0', n % 20 > 0,
        d.day + interval '12 hours' FROM ${series}`,
    [tenantId],
  );
  await stage.db.query(
    `INSERT INTO usage_days (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, plan_tier, executions, billable, input_tokens, output_tokens, cost_micro_usd)
     SELECT $1, d.day, 'plugin-' || n % 4, 'live', ('00000000-0000-7000-8000-00000000000' || n % 5)::uuid, 'claude-sonnet-5-5', '2026-10-24', 'enterprise', count(*), count(*) FILTER (WHERE n % 20 > 0),
        coalesce(sum(1000) FILTER (WHERE n % 20 > 0), 0), coalesce(sum(200) FILTER (WHERE n % 20 > 0), 0), coalesce(sum(4000 + n % 100) FILTER (WHERE n % 20 > 0), 0) FROM ${series} GROUP BY d.day, n % 4, n % 5`,
    [tenantId],
  );
}

export const money: Part = {
  letter: "money",
  title: `admission under a quota beside one INSERT; usage and the closing of a month with ${whole(EVENTS)} events of one tenant`,

  async run(stage, print) {
    const lost: string[] = [];
    await stage.register(noop, "http://127.0.0.1:9");
    await admissions(stage, print);

    await stage.clear();
    const [large, ...others] = stage.tenants;
    if (!large) throw new Error("a tenant is needed");
    await fill(stage, large.tenantId, EVENTS);
    for (const { tenantId } of others) await fill(stage, tenantId, MANY);
    await stage.db.query("VACUUM ANALYZE execution_events, usage_days");
    const { rows } = await stage.db.query(
      "SELECT count(*)::int AS events, (SELECT count(*)::int FROM usage_days WHERE tenant_id = $1) AS days FROM execution_events WHERE tenant_id = $1",
      [large.tenantId],
    );
    const [{ month, to }] = (
      await stage.db.query<{ month: string; to: string }>(
        "SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date::text AS month, (date_trunc('month', now() AT TIME ZONE 'UTC')::date - 1)::text AS to",
      )
    ).rows as [{ month: string; to: string }];
    const db = await openDatabase({ url: stage.env.DATABASE_URL ?? "", driver: "pg", poolSize: 2 });
    const usage = (by: ("plugin" | "day" | "key")[]) => () => reportUsage(db, asId("tenant", large.tenantId), { environment: "live", from: month, to, by });
    const bare = () =>
      stage.db.query(
        `SELECT plugin_name, date_trunc('day', timestamp), count(*), sum(cost_micro_usd) FROM execution_events WHERE tenant_id = $1 AND timestamp >= $2::date AND timestamp < $3::date + 1 GROUP BY 1, 2`,
        [large.tenantId, month, to],
      );
    const report = await usage(["plugin"])();
    if (report.total.executions !== EVENTS) lost.push(`the usage report counts ${report.total.executions} of ${EVENTS} executions`);

    await stage.db.query("UPDATE tenants SET created_at = $1::date", [month]);
    const reset = async () => {
      await stage.db.query("UPDATE usage_days SET invoice_id = NULL");
      await stage.db.query("DELETE FROM invoice_lines; DELETE FROM invoices; DELETE FROM tenant_billing");
    };
    const closings: number[] = [];
    for (let i = 0; i < CLOSINGS; i++) {
      await reset();
      const [spent = Number.NaN] = await timed(1, () => closeMonth(db, large.tenantId, month));
      closings.push(spent);
    }
    const again = await timed(20, () => closeMonth(db, large.tenantId, month));
    await reset();
    let made = 0;
    const [all = Number.NaN] = await timed(1, async () => {
      made = await closeMonths(db, { monthClosed() {}, monthNotClosed: ({ tenantId, reason }) => lost.push(`${tenantId}: ${reason}`) }, new AbortController().signal);
    });
    if (made !== stage.tenants.length) lost.push(`${made} invoices for ${stage.tenants.length} tenants`);
    print(
      table(
        [`${whole(rows[0].events)} events, ${whole(rows[0].days)} rows of usage_days`, "p50", "slowest"],
        [
          ["usage by plugin", ...shown(await timed(READS, usage(["plugin"])))],
          ["usage by plugin, day and key", ...shown(await timed(READS, usage(["plugin", "day", "key"])))],
          ["the same sums from the events themselves", ...shown(await timed(5, bare))],
          ["closing the month, its events summed beside", ...shown(closings)],
          ["closing it again", ...shown(again)],
        ],
      ),
    );
    print(`  billing-aggregate for all ${whole(stage.tenants.length)} tenants, ${whole(EVENTS + others.length * MANY)} events: ${millis(all)}.`);
    await reset();
    await db.close();
    await stage.clear();
    return lost;
  },
};

const shown = (spent: readonly number[]): [string, string] => [millis(median(spent)), millis(Math.max(...spent))];
