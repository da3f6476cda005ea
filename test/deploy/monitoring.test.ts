import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ROOT } from "../../scripts/functions.ts";
import { exportGauges } from "../../shared/host/bridge/gauges.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";

const FOLDER = join(ROOT, "knative/monitoring");
const text = (path: string) => readFileSync(join(FOLDER, path), "utf8");
const Rule = v.object({ record: v.optional(v.string()), alert: v.optional(v.string()), expr: v.string(), labels: v.optional(v.record(v.string(), v.string()), {}) });
const Rules = v.object({ groups: v.array(v.object({ name: v.string(), rules: v.array(Rule) })) });
const rules = () => v.parse(Rules, parse(text("rules.yml"))).groups.flatMap((group) => group.rules);
const Board = v.object({ uid: v.string(), panels: v.array(v.object({ id: v.number(), title: v.string(), targets: v.array(v.object({ expr: v.string() })) })) });
const boards = () => readdirSync(join(FOLDER, "dashboards")).map((file) => v.parse(Board, JSON.parse(text(`dashboards/${file}`))));

/** Names that a query asks for, without what Prometheus adds to histograms. */
const metricsIn = (expr: string) => [...expr.matchAll(/\baau[_:][a-z0-9_:]+/g)].map(([name]) => name.replace(/_(bucket|count|sum)$/, ""));

/** Those of SPEC 24.1. */
const SPECIFIED = [
  "aau_router_confidence",
  "aau_router_method_total",
  "aau_plugin_execution_duration_seconds",
  "aau_plugin_token_usage_total",
  "aau_plugin_budget_exceeded_total",
  "aau_circuit_breaker_state",
  "aau_task_stream_depth",
  "aau_rate_limit_hits_total",
  "aau_webhook_delivery_failures_total",
  "aau_api_key_auth_latency_seconds",
];

async function exported(): Promise<Set<string>> {
  const metrics = openMetrics();
  const redis = new Redis({ lazyConnect: true });
  exportGauges({ redis, db: { call: () => Promise.reject(new Error("never asked")), platform: () => Promise.reject(new Error("never asked")) }, consumers: new Map(), metrics });
  const names = metrics.registry.getMetricsAsArray().map(({ name }) => name);
  redis.disconnect();
  // Made with its labels where the bridge is started.
  return new Set([...names, "aau_bridge_deliveries_total"]);
}

describe("what is watched", () => {
  it("is there: every metric of the design under its name", async () => {
    const names = await exported();
    expect(SPECIFIED.filter((name) => !names.has(name))).toEqual([]);
  });

  it("is told by some process, or recorded by a rule, wherever a rule or a dashboard asks for it", async () => {
    const known = await exported();
    for (const { record } of rules()) if (record) known.add(record);
    const asked = [...rules().map(({ expr }) => expr), ...boards().flatMap(({ panels }) => panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)))].flatMap(metricsIn);
    expect(asked.length).toBeGreaterThan(40);
    expect([...new Set(asked)].filter((name) => !known.has(name))).toEqual([]);
  });

  it("has an alert for each of the six objectives, and the five alerts of the design", () => {
    const alerts = rules().filter(({ alert }) => alert);
    expect(alerts.flatMap(({ labels }) => labels.slo ?? []).sort()).toEqual([
      "auth_latency",
      "llm_routing",
      "plugin_success",
      "router_latency",
      "sync_delivery",
      "webhook_delivery",
    ]);
    expect(alerts.map(({ alert }) => alert)).toEqual(
      expect.arrayContaining(["PluginCircuitOpen", "LlmRoutingRateHigh", "TaskQueueBackingUp", "PluginLatencyHigh", "AuthPathSlow"]),
    );
  });

  it("has panels with numbers of their own on every dashboard", () => {
    for (const { uid, panels } of boards()) {
      expect(uid).toMatch(/^aau-/);
      expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    }
  });
});

const hasTools = spawnSync("promtool", ["--version"]).status === 0 && spawnSync("amtool", ["--version"]).status === 0;
if (!hasTools) console.warn("Rules are not run: promtool and amtool are not installed (Debian: prometheus, prometheus-alertmanager).");
describe.skipIf(!hasTools)("Prometheus's and Alertmanager's own tools", () => {
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: FOLDER, encoding: "utf8", stdio: "pipe" });

  it("accept the rules, and see each alert fire and keep still when it should", () => {
    expect(run("promtool", "check", "rules", "rules.yml")).toContain("SUCCESS");
    expect(run("promtool", "test", "rules", "rules.test.yml")).toContain("SUCCESS");
  });

  it("have a test for every alert", () => {
    const tested = text("rules.test.yml");
    for (const { alert } of rules()) if (alert) expect(tested).toMatch(new RegExp(`alertname: ${alert}\\b`));
  });

  it("accept where alerts go", () => {
    for (const file of ["alertmanager.yml", "../local/alertmanager.yml"]) expect(run("amtool", "check-config", file)).toContain("SUCCESS");
  });
});
