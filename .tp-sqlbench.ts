import pg from "pg";
import { readFileSync } from "node:fs";
import { migrate } from "./scripts/migrate.ts";
import { seedTenant } from "./scripts/seed-tenant.ts";
import { openDatabase } from "./shared/db/database.ts";
import { newId } from "./shared/ids.ts";
import { offlineEmbedder } from "./shared/models/embeddings-offline/offline-embedder.ts";
import { registerPlugin } from "./shared/registry/register-plugin.ts";
import noop from "./test/bench/functions/plugins/bench-noop/bench-noop.ts";
import { startPostgres } from "./test/support/postgres.ts";
const cpu = (pid: number) => { const f = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" "); return (Number(f[11]) + Number(f[12])) * 10; };
const durable = process.env.DURABLE === "1";
const p = await startPostgres({ durable, flags: ["-c", "max_wal_size=4GB", "-c", "checkpoint_timeout=30min", ...(process.env.PGFLAGS?.split(" ") ?? [])] });
await migrate(p.url);
const platform = await openDatabase({ url: p.url, driver: "pg", poolSize: 2 });
const tenants: string[] = [];
for (let i = 0; i < 50; i++) tenants.push((await seedTenant(platform, { name: `b${i}`, tier: "enterprise", settings: {}, subscriptions: {} })).tenantId);
await registerPlugin(platform, offlineEmbedder(), noop.manifest, "http://127.0.0.1:9");
const root = new pg.Client(p.url); await root.connect();
await root.query(`INSERT INTO subscriptions (id, tenant_id, plugin_id, tier) SELECT gen_random_uuid(), t.id, p.id, 'enterprise' FROM tenants t, plugins p`);
await root.query("CREATE ROLE bench LOGIN PASSWORD 'bench'; GRANT aau_app, aau_platform TO bench");
await root.query(readFileSync("migrations/0004_admit_in_batches.sql","utf8").replace("CREATE FUNCTION admit_tasks","CREATE FUNCTION admit_loop"));
const u = new URL(p.url); u.username = "bench"; u.password = "bench";
const c = new pg.Client(u.href); await c.connect();
const pid = (await c.query("select pg_backend_pid() as pid")).rows[0].pid;
const call = (name: string, text: string, values: unknown[]) => c.query({ name, text, values });
const N = Number(process.env.N ?? 4000), B = Number(process.env.B ?? 6);
const chunk = <T>(a: T[], n: number) => Array.from({ length: Math.ceil(a.length / n) }, (_, i) => a.slice(i * n, i * n + n));
import { spawn } from "node:child_process";
async function timed(label: string, work: () => Promise<void>) {
  const st = spawn("perf", ["stat", "-e", "instructions", "-x,", "-p", String(pid)], { stdio: ["ignore", "ignore", "pipe"] }); let out = ""; st.stderr.on("data", (d) => (out += d)); await new Promise((r) => setTimeout(r, 150));
  const done = async () => { st.kill("SIGINT"); await new Promise((r) => st.once("exit", r)); console.log("   kinstr", Math.round(Number(out.split(",")[0]) / N / 1000)); }; const a = cpu(pid); const t = performance.now(); await work(); console.log(label.padEnd(24), Math.round(((cpu(pid) - a) * 1000) / N), "µs cpu", Math.round(((performance.now() - t) * 1000) / N), "µs wall"); await done(); }
const has = async (f: string) => (await c.query("select 1 from pg_proc where proname=$1", [f])).rows.length > 0;
const batchClaim = await has("claim_tasks"), batchSettle = await has("settle_tasks"), batchRead = await has("read_tasks");
for (let round = 0; round < 3; round++) {
  await root.query("TRUNCATE tasks, task_steps, task_events, idempotency_keys, llm_calls, execution_events, usage_periods CASCADE"); await root.query("CHECKPOINT");
  console.log("round", round);
  const tasks = Array.from({ length: N }, (_, i) => ({ id: newId("task") as string, tenant: tenants[i % 50] as string, lease: "" }));
  for (let q = 0; q < 2; q++) {
  if (process.env.PERF && round === 2 && q === 1) { const { spawn } = await import("node:child_process"); setTimeout(() => spawn("perf", ["record", "--call-graph", "dwarf,16384", "-F", "500", "-o", "/tmp/tp/perf.data", "-p", String(pid), "--", "sleep", "3"], { stdio: "ignore" }), 0); await new Promise((r) => setTimeout(r, 500)); }
  await timed("admit loop", async () => { for (const [k, part] of chunk(tasks, B).entries()) await call("admitl", "SELECT * FROM admit_loop($1)", [JSON.stringify(part.map((t, place) => ({ place, tenant: t.tenant, id: t.id, user: null, key: t.id, environment: "live", conversation: null, plugin: "bench-noop", plan: [{ id: "main", plugin: "bench-noop", version: "1.0.0", needs: [] }], input: { command: `Do nothing ${k}`, attachments: [] }, method: "explicit", confidence: 1, priority: "normal", max_cost: null, deadline: new Date(Date.now() + 3.6e6).toISOString(), traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", request: "req_0123456789", idempotency_key: null, request_sha256: null })))]); });
  await root.query("TRUNCATE tasks, usage_periods CASCADE");
  await timed("admit", async () => { for (const [k, part] of chunk(tasks, B).entries()) await call("admit", "SELECT * FROM admit_tasks($1)", [JSON.stringify(part.map((t, place) => ({ place, tenant: t.tenant, id: t.id, user: null, key: t.id, environment: "live", conversation: null, plugin: "bench-noop", plan: [{ id: "main", plugin: "bench-noop", version: "1.0.0", needs: [] }], input: { command: `Do nothing ${k}`, attachments: [] }, method: "explicit", confidence: 1, priority: "normal", max_cost: null, deadline: new Date(Date.now() + 3.6e6).toISOString(), traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", request: "req_0123456789", idempotency_key: null, request_sha256: null })))]); });
 if (q === 0) await root.query("TRUNCATE tasks, usage_periods CASCADE"); }

  if (process.env.PERFC && round === 2) { console.log("PERF pid", pid); const { spawn } = await import("node:child_process"); spawn("perf", ["record", "-g", "-o", "/tmp/tp/perf.data", "-p", String(pid), "--", "sleep", "6"], { stdio: "ignore" }); await new Promise((r) => setTimeout(r, 500)); }
  const lease = new Map<string, string>();
  await timed("claim", async () => {
    if (batchClaim) for (const part of chunk(tasks, B)) { const { rows } = await call("claims", "SELECT * FROM claim_tasks($1, $2, $3)", [part.map((t) => t.id), 30000, 3]); for (const r of rows) { lease.set(r.id, r.lease_token); if (r.outcome !== "claimed") throw new Error(r.outcome); } }
    else for (const t of tasks) { const { rows } = await call("claim", "SELECT * FROM claim_task($1,$2,$3)", [t.id, 30000, 3]); lease.set(t.id, rows[0].lease_token); }
  });
  const result = { result: "Do nothing 1", data: null, artifacts: [], confidence: 1, next_steps: [], warnings: [], execution_meta: { latency_seconds: 0.05, agents_invoked: 1, model_used: null, budget_exceeded: false } };
  const at = new Date().toISOString();
  const events = [{ type: "started", data: { attempt: 1, plugin: "bench-noop", version: "1.0.0" }, at }, { type: "node_started", data: { node: "answer" }, at }, { type: "node_finished", data: { node: "answer", duration_ms: 1 }, at }];
  const step = { step: "main", plugin_name: "bench-noop", plugin_version: "1.0.0", attempt: 1, status: "success", output: result, latency_ms: 50 };
  await timed("settle", async () => {
    if (batchSettle) for (const part of chunk(tasks, B)) { const { rows } = await call("settles", "SELECT * FROM settle_tasks($1)", [JSON.stringify(part.map((t, place) => ({ place, tenant: t.tenant, id: t.id, lease: lease.get(t.id), status: "success", result, error: null, steps: [step], events })))]); if (rows.length !== part.length || rows.some((r) => r.settled !== true)) throw new Error(JSON.stringify(rows)); }
    else for (const t of tasks) { const { rows } = await call("settle", "SELECT settle_task($1,$2,$3,$4,$5,$6,$7,$8) AS settled", [t.tenant, t.id, lease.get(t.id), "success", JSON.stringify(result), null, JSON.stringify([step]), JSON.stringify(events)]); if (!rows[0].settled) throw new Error("lost"); }
  });
  await timed("read", async () => {
    if (batchRead) for (const part of chunk(tasks, B)) await call("reads", "SELECT * FROM read_tasks($1,$2)", [part.map((t) => t.tenant), part.map((t) => t.id)]);
    else for (const t of tasks) await call("read", "SELECT * FROM read_task($1,$2)", [t.tenant, t.id]);
  });
  console.log((await root.query("select (select count(*) from tasks where status='success') t,(select count(*) from task_events) e,(select count(*) from execution_events) x, (select count(*) from task_steps) s, (select sum(used) from usage_periods) u, (select sum(reserved) from usage_periods) r")).rows[0]);
}
await c.end(); await root.end(); await platform.close(); await p.stop();
