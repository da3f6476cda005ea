import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { seedTenant } from "../../scripts/seed-tenant.ts";
import { type Database, openDatabase } from "../../shared/db/database.ts";
import { newId, type TenantId } from "../../shared/ids.ts";
import { estimateCost } from "../../shared/planning/estimate-cost.ts";
import { freshDatabase } from "../support/postgres.ts";

const MODEL = "claude-sonnet-4-6";
const upstream = { charges: true, resolveModel: (requested: string) => requested };
const step = (plugin: string, more: { when?: string; budget?: number; model?: string } = {}) => ({
  plugin,
  when: more.when,
  manifest: { model: more.model ?? MODEL, token_budget: more.budget ?? 1_000_000 },
});

let db: Database;
let tenants = 0;
beforeAll(async () => {
  db = await openDatabase({ url: await freshDatabase(inject("postgresUrl")), driver: "pg", poolSize: 2 });
});
afterAll(() => db?.close());

/** A tenant whose executions of `plugin` cost so much, the last one latest. */
async function tenantWith(plugin: string, costs: readonly number[], { model = MODEL, status = "success" } = {}): Promise<TenantId> {
  const { tenantId } = await seedTenant(db, { name: `t${++tenants}`, tier: "professional", subscriptions: {} });
  for (const [i, cost] of costs.entries()) {
    await db.call(
      `INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, status, model, latency_ms, cost_micro_usd, routing_method, envelope_version, billable, timestamp)
       VALUES ($1, $2, '1.0.0', $3, 'main', 1, 'live', $4, $5, 1, $6, 'explicit', '1.0', true, now() - $7 * interval '1 second')`,
      [tenantId, plugin, newId("task"), status, model, cost, costs.length - i],
    );
  }
  return tenantId;
}
const estimate = (tenantId: TenantId, steps: ReturnType<typeof step>[], maxCost?: bigint) => estimateCost({ db, upstream }, tenantId, steps, maxCost);

describe("estimateCost", () => {
  it("takes what the tenant's own executions cost, without the dearest and the cheapest tenth", async () => {
    const tenant = await tenantWith("a", [1, ...Array.from({ length: 18 }, (_, i) => 100 + i), 9_000_000]);
    expect(await estimate(tenant, [step("a")])).toEqual({ low: 100n, high: 116n });
  });

  it("takes the budget of the manifest where there are too few, of another model, failed, or another tenant's", async () => {
    const byBudget = { low: 540_000n, high: 5_400_000n };
    // 800,000 tokens in at 3 dollars and 200,000 out at 15 dollars a million.
    for (const tenant of [
      await tenantWith("a", [1, 2, 3, 4]),
      await tenantWith("a", [1, 2, 3, 4, 5, 6], { model: "claude-opus-5" }),
      await tenantWith("a", [1, 2, 3, 4, 5, 6], { status: "failed" }),
      await tenantWith("b", [1, 2, 3, 4, 5, 6]),
      await tenantWith("a", []),
    ])
      expect(await estimate(tenant, [step("a")])).toEqual(byBudget);
  });

  it("adds steps up, and counts one that may be left out only at the upper end", async () => {
    const tenant = await tenantWith("a", [10, 10, 10, 10, 10]);
    expect(await estimate(tenant, [step("a"), step("a", { when: "steps.x.confidence > 0.5" }), step("a")])).toEqual({ low: 20n, high: 30n });
  });

  it("does not go beyond what the task may cost", async () => {
    const tenant = await tenantWith("a", [10, 10, 10, 10, 1_000, 1_000]);
    expect(await estimate(tenant, [step("a"), step("a")], 50n)).toEqual({ low: 20n, high: 50n });
    expect(await estimate(tenant, [step("a")], 0n)).toEqual({ low: 0n, high: 0n });
  });

  it("is nothing where nobody sends a bill", async () => {
    const tenant = await tenantWith("a", []);
    expect(await estimateCost({ db, upstream: { ...upstream, charges: false } }, tenant, [step("a")], undefined)).toEqual({ low: 0n, high: 0n });
  });
});
