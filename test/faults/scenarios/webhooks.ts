/** Receivers that are a burden beside ones that are well; and events whose transactions commit in another order than they began. */

import { UNLIMITED } from "../platform.ts";
import plugin from "../plugin.ts";
import { untilTold } from "../told.ts";
import { delay, type Scenario, type ScenarioTools } from "./scenario.ts";

const EVENTS = 12;
const PAIRS = 5;
const PATIENCE_MS = 45_000;
const DAY_MS = 86_400_000;

/** What is written down of an attempt at each way of being a burden. */
const DESERVES: readonly [RegExp, string][] = [
  [/is down/, "connection_refused"],
  [/no address/, "name_not_found"],
  [/no TLS/, "tls_failed"],
  [/redirects/, "redirected"],
  [/never answers|drop by drop|29 seconds/, "timed_out"],
  [/wait for thirty years|is gone|^fails/, "refused"],
  [/resets/, "connection_broken"],
  [/three megabytes/, "unreadable_answer"],
];

interface Tried {
  name: string;
  attempts: number;
  errors: string[];
}

async function triedOf({ platform }: ScenarioTools, tenantId: string): Promise<Tried[]> {
  const { rows } = await platform.look.query<Tried>(
    `SELECT w.description AS name, count(a.delivery_id)::int AS attempts, coalesce(array_agg(DISTINCT a.error) FILTER (WHERE a.error IS NOT NULL), '{}') AS errors
      FROM webhooks w LEFT JOIN webhook_deliveries d ON d.webhook_id = w.id LEFT JOIN webhook_attempts a ON a.delivery_id = d.id WHERE w.tenant_id = $1 GROUP BY w.id, w.description ORDER BY w.id`,
    [tenantId],
  );
  return rows;
}

export const WEBHOOK_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-25",
    title: "receivers that are down, slow, endless, redirecting, lying and gone, beside one that is well",
    weight: 0,
    async run(tools) {
      const { platform } = tools;
      const { receivers, look } = platform;
      const member = await platform.tenants.add({ ...UNLIMITED, name: "burdened", subscriptions: { [plugin.name]: null } });
      const well = await platform.tenants.addEndpoint(member.tenantId);
      for (const burden of receivers.burdens) await platform.tenants.addEndpoint(member.tenantId, burden);
      await tools.send(EVENTS, () => ({ apiKey: member.key }), 4);
      const until = performance.now() + PATIENCE_MS;
      while ((await triedOf(tools, member.tenantId)).some(({ attempts }) => attempts === 0) && performance.now() < until) await delay(500);
      const tried = await triedOf(tools, member.tenantId);
      for (const { name, attempts, errors } of tried) {
        tools.say(`F-25 ${name}: ${attempts} attempts${errors.length > 0 ? `, ${errors.join(" and ")}` : ""}`);
        tools.sure(`${name} was tried`, attempts > 0);
        const deserved = DESERVES.find(([pattern]) => pattern.test(name))?.[1];
        if (deserved) tools.sure(`${name} is noted as ${errors.join(", ")}, and not as ${deserved}`, errors.includes(deserved));
      }
      const { rows } = await look.query<{ name: string; status: string; latest: Date | null; largest: number | null }>(
        `SELECT w.description AS name, w.status, max(d.next_attempt_at) AS latest, max(octet_length(a.answer)) AS largest
          FROM webhooks w LEFT JOIN webhook_deliveries d ON d.webhook_id = w.id LEFT JOIN webhook_attempts a ON a.delivery_id = d.id WHERE w.tenant_id = $1 GROUP BY w.id`,
        [member.tenantId],
      );
      for (const { name, status, latest, largest } of rows) {
        tools.sure(`${name} is asked again within a day and a half`, (latest?.getTime() ?? 0) < Date.now() + 1.5 * DAY_MS);
        tools.sure(`${largest} bytes are kept of what ${name} answered`, (largest ?? 0) <= 3 * 1_024);
        if (name === "is gone") tools.sure(`who is gone is ${status}`, status === "disabled");
      }
      tools.sure(`${receivers.canaryConnections()} connections where only redirects lead`, receivers.canaryConnections() === 0);
      tools.say(
        `F-25 the one that is well: first attempt ${await firstAttempts(tools, member.tenantId, well)} after the end of a task; connections by redirects: ${receivers.canaryConnections()}`,
      );
      // Nobody has to try them any more.
      await look.query(
        "UPDATE webhooks SET status = 'disabled', disabled_reason = 'by_owner', disabled_at = now() WHERE tenant_id = $1 AND status = 'active' AND id <> ALL ($2::uuid[])",
        [member.tenantId, receivers.endpoints.flatMap(({ id, isHealthy }) => (isHealthy ? [id] : []))],
      );
      tools.sure("who is well, or lies about it, was told everything", await untilTold(tools), "I9");
    },
  },
  {
    id: "F-38",
    title: "of two transactions the first to begin is the last to commit, and nothing is passed over",
    weight: 0,
    async run(tools) {
      const { platform } = tools;
      const tenantId = platform.tenants.tenantOf(platform.keys.unlimited);
      if (!tenantId) throw new Error("the first key belongs to nobody");
      const endpoint = await platform.tenants.addEndpoint(tenantId, undefined, ["quota.warning"]);
      const put = (client: Pick<typeof platform.look, "query">, key: string) =>
        client.query("SELECT enqueue_webhook_event($1, 'quota.warning', $2, $3)", [tenantId, key, JSON.stringify({ key })]);
      for (let i = 0; i < PAIRS; i++) {
        const early = await platform.look.connect();
        await early.query("BEGIN");
        await put(early, `f38-early-${i}`);
        await put(platform.look, `f38-late-${i}`);
        // `wake` comes by twice.
        await delay(2_200);
        await early.query("COMMIT");
        early.release();
      }
      await untilTold(tools);
      const heard = new Set(platform.receivers.heard.filter((one) => one.endpoint === endpoint).map(({ webhook_id }) => webhook_id)).size;
      tools.sure(`${heard} of ${2 * PAIRS} events were told`, heard === 2 * PAIRS, "I9");
      const passed = await overtaken(tools, tenantId);
      tools.say(`F-38 ${PAIRS} pairs that committed in the other order: ${heard} of ${2 * PAIRS} events told; a task that was overtaken ${passed ? "ran" : "was LOST"}`);
      platform.receivers.remove(endpoint);
      await platform.look.query("DELETE FROM webhooks WHERE id = $1", [endpoint]);
    },
  },
];

/** Milliseconds from the commit of a task's end to the first request. */
async function firstAttempts({ platform }: ScenarioTools, tenantId: string, endpoint: string): Promise<string> {
  const { rows } = await platform.look.query<{ at: Date }>("SELECT completed_at AS at FROM tasks WHERE tenant_id = $1 ORDER BY completed_at", [tenantId]);
  const firsts = new Map<string, number>();
  for (const one of platform.receivers.heard) if (one.endpoint === endpoint && !firsts.has(one.webhook_id)) firsts.set(one.webhook_id, one.at);
  const heard = [...firsts.values()].sort((a, b) => a - b);
  const waits = heard.map((at, i) => at - (rows[i]?.at.getTime() ?? at)).sort((a, b) => a - b);
  return `p50 ${waits[Math.floor(waits.length / 2)] ?? "–"} ms, p95 ${waits[Math.floor(waits.length * 0.95)] ?? "–"} ms (${waits.length})`;
}

/** Its admission waits for a row that somebody holds, while later ones are admitted and done. */
async function overtaken(tools: ScenarioTools, tenantId: string): Promise<boolean> {
  const { platform } = tools;
  const slow = await platform.tenants.add({ ...UNLIMITED, name: "overtaken", subscriptions: { [plugin.name]: 10 } });
  await tools.send(1, () => ({ apiKey: slow.key }));
  const holder = await platform.look.connect();
  await holder.query("BEGIN");
  await holder.query("SELECT 1 FROM usage_periods WHERE tenant_id = $1 FOR UPDATE", [slow.tenantId]);
  const first = tools.send(1, () => ({ apiKey: slow.key }));
  await delay(300);
  await tools.send(3, () => ({}), 3);
  const count = async (tenant: string) => Number((await platform.look.query<{ n: string }>("SELECT count(*) AS n FROM tasks WHERE tenant_id = $1", [tenant])).rows[0]?.n);
  const hidden = await count(slow.tenantId);
  await delay(2_200);
  await holder.query("COMMIT");
  holder.release();
  await first;
  tools.sure(`${hidden} task of the slow one could be seen while later ones of ${tenantId} were done`, hidden === 1);
  return (await count(slow.tenantId)) === 2;
}
