/** Closing months while whoever closes them is killed, twice at once, without an answer to its COMMIT, and after late usage. */
import { createHash } from "node:crypto";
import type { ProcessName } from "../platform.ts";
import { UNLIMITED } from "../platform.ts";
import plugin, { FILER } from "../plugin.ts";
import type { Member } from "../tenants.ts";
import { untilTold } from "../told.ts";
import type { Scenario, ScenarioTools } from "./scenario.ts";

const CLOSERS = ["billing-aggregate-1", "billing-aggregate-2"] as const satisfies ProcessName[];
const PATIENCE_MS = 60_000;

/**
 * A month passes for one tenant: all that it has is a month older, as if it had been done then. Days beyond the shorter month's end fall on its
 * last one; a run that begins on such a day has all of its usage on one.
 */
async function passMonth({ platform }: ScenarioTools, { tenantId }: Member): Promise<void> {
  const client = await platform.look.connect();
  try {
    await client.query("BEGIN");
    const shifts: Readonly<Record<string, readonly string[]>> = {
      tasks: ["created_at", "started_at", "completed_at", "deadline"],
      execution_events: ["timestamp"],
      usage_days: ["day"],
      usage_periods: ["period_start"],
      subscriptions: ["started_at"],
      tenant_plans: ["from_at"],
      invoices: ["period_start", "period_end"],
      invoice_lines: ["origin"],
      tenant_billing: ["closed_until"],
    };
    await client.query("UPDATE tenants SET created_at = created_at - interval '1 month' WHERE id = $1", [tenantId]);
    for (const [table, columns] of Object.entries(shifts)) {
      // Out of the way first: two months of one table have one key for a moment, otherwise.
      for (const months of [-1_000, 999]) {
        const set = columns.map((column) => `${column} = ${column} + interval '${months} months'`).join(", ");
        await client.query(`UPDATE ${table} SET ${set} WHERE tenant_id = $1`, [tenantId]);
      }
    }
    await client.query("UPDATE invoices SET period_end = (period_start + interval '1 month')::date - 1 WHERE tenant_id = $1", [tenantId]);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

/** Two months of fees, and one of work, that nobody has closed. */
async function customer(tools: ScenarioTools, name: string, count: number): Promise<Member> {
  const member = await tools.platform.tenants.add({ ...UNLIMITED, name, subscriptions: { [plugin.name]: Math.ceil(count / 2), [FILER]: null } });
  const { look, tenants } = tools.platform;
  await look.query("UPDATE subscriptions SET overage_enabled = true WHERE tenant_id = $1", [member.tenantId]);
  await tenants.addEndpoint(member.tenantId);
  await work(tools, member, count);
  await look.query("UPDATE tenants SET created_at = now() - interval '2 months' WHERE id = $1", [member.tenantId]);
  await look.query("UPDATE subscriptions SET started_at = now() - interval '2 months' WHERE tenant_id = $1", [member.tenantId]);
  await passMonth(tools, member);
  return member;
}

const work = (tools: ScenarioTools, { key }: Member, count: number) => tools.send(count, (i) => ({ apiKey: key, isPlan: i % 3 === 0 }));

/** As the schedule does; false when the process died of it. */
async function close({ platform }: ScenarioTools, closer: (typeof CLOSERS)[number] = CLOSERS[0]): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${platform.processes[closer].port}/`, { method: "POST", signal: AbortSignal.timeout(PATIENCE_MS) });
    await answer.arrayBuffer();
    return answer.ok;
  } catch {
    return false;
  }
}

async function closeAll(tools: ScenarioTools): Promise<void> {
  await tools.platform.processes[CLOSERS[0]].untilReady();
  await tools.platform.processes[CLOSERS[1]].untilReady();
  await close(tools);
}

const invoicesOf = async ({ platform }: ScenarioTools, { tenantId }: Member): Promise<number> =>
  Number((await platform.look.query<{ n: string }>("SELECT count(*) AS n FROM invoices WHERE tenant_id = $1", [tenantId])).rows[0]?.n);

/** What stands in the books of everybody, in one number. */
async function books({ platform }: ScenarioTools): Promise<string> {
  const tables = ["invoices", "invoice_lines", "usage_days", "tenant_billing"];
  const texts = await Promise.all(
    tables.map(async (table) => (await platform.look.query<{ t: string | null }>(`SELECT string_agg(r::text, E'\\n' ORDER BY r::text) AS t FROM ${table} r`)).rows[0]?.t),
  );
  return createHash("sha256").update(texts.join("\n\n")).digest("hex");
}

async function killAt(tools: ScenarioTools, id: string, failpoint: string, isCommitted: boolean): Promise<void> {
  const member = await customer(tools, id, 4);
  const closer = tools.platform.processes[CLOSERS[0]];
  const before = closer.hits(failpoint);
  await closer.arm(`${failpoint}:kill#1`);
  const isDone = await close(tools);
  tools.sure("the closing process was killed", !isDone && closer.hits(failpoint) > before);
  const closed = await invoicesOf(tools, member);
  tools.sure(`${closed} invoices after the kill`, closed === (isCommitted ? 1 : 0));
  await closeAll(tools);
  const after = await invoicesOf(tools, member);
  tools.sure(`${after} invoices for three months after another run`, after === 3, "I7");
  tools.say(`${id} SIGKILL at ${failpoint}: ${closed} invoices then, ${after} after another run`);
}

export const BILLING_SCENARIOS: readonly Scenario[] = [
  { id: "l1", title: "whoever closes a month is killed with its lines written and not committed", weight: 0, run: (tools) => killAt(tools, "l1", "billing.before_commit", false) },
  {
    id: "l2",
    title: "the answer to the COMMIT that closes a month is lost, committed and not",
    weight: 0,
    async run(tools) {
      for (const variant of ["committed", "lost"] as const) {
        const member = await customer(tools, `l2-${variant}`, 4);
        let isLost = false;
        void tools.platform.billingPostgres.loseNext("commit", variant).then(() => {
          isLost = true;
        });
        await close(tools);
        tools.sure(`the answer was lost (${variant})`, isLost);
        const closed = await invoicesOf(tools, member);
        await closeAll(tools);
        const after = await invoicesOf(tools, member);
        tools.sure(`${after} invoices for three months (${variant})`, after === 3, "I7");
        tools.say(`l2 COMMIT's answer lost (${variant}): ${closed} invoices then, ${after} after another run`);
      }
      tools.platform.billingPostgres.calm();
    },
  },
  { id: "l3", title: "whoever closes a month is killed just after its COMMIT", isShort: true, weight: 0, run: (tools) => killAt(tools, "l3", "billing.after_commit", true) },
  {
    id: "F-32",
    title: "months are closed twice at once, then again, and after that late usage comes in",
    weight: 0,
    async run(tools) {
      const members = [await customer(tools, "f32-a", 9), await customer(tools, "f32-b", 3)];
      await Promise.all([...CLOSERS, ...CLOSERS].map((closer) => close(tools, closer)));
      await closeAll(tools);
      const once = await books(tools);
      await closeAll(tools);
      tools.sure("closing again changes nothing", (await books(tools)) === once, "I7");
      for (const member of members) tools.sure(`${await invoicesOf(tools, member)} invoices for three months`, (await invoicesOf(tools, member)) === 3, "I7");

      // Work of this month, and some that a long transaction settled into the closed one.
      const [late] = members;
      if (!late) return;
      await work(tools, late, 4);
      const { look } = tools.platform;
      await look.query("UPDATE usage_days SET day = day - interval '1 month' WHERE tenant_id = $1 AND invoice_id IS NULL", [late.tenantId]);
      await look.query(
        `UPDATE execution_events SET timestamp = timestamp - interval '1 month' WHERE tenant_id = $1 AND timestamp >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'`,
        [late.tenantId],
      );
      await passMonth(tools, late);
      await closeAll(tools);
      const { rows } = await look.query<{ quantity: string | null; wrong: string }>(
        `SELECT sum(l.quantity) FILTER (WHERE l.kind IN ('executions', 'overage') AND l.origin < i.period_start) AS quantity,
            count(*) FILTER (WHERE l.kind IN ('executions', 'overage') AND l.origin = i.period_start) AS wrong
          FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id WHERE i.tenant_id = $1 AND i.number = 4`,
        [late.tenantId],
      );
      const [row] = rows;
      // 4 tasks, the first and the fourth with two steps.
      tools.sure(`${row?.quantity} late executions on the next invoice, with the month that they are from`, row?.quantity === "6" && row.wrong === "0", "I7");
      tools.say(`F-32 closed by two processes, twice each: 3 invoices each; ${row?.quantity} late executions on the next invoice under their own month`);
      await untilTold(tools);
    },
  },
];
