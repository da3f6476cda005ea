/** Many for few places, while whoever gives them out dies; and places whose holder died. */

import { UNLIMITED } from "../platform.ts";
import plugin from "../plugin.ts";
import type { Member } from "../tenants.ts";
import { delay, type Scenario, type ScenarioTools } from "./scenario.ts";

const PLACES = 10;
const RACERS = 200;
/** s2 to s4 lie inside the statement whose answer is lost; the kills stand before and after it. */
const RACES = ["nothing", "answers lost", "submit.before_admit", "submit.after_commit"] as const;
const ROUNDS = 100;
const HELD = 3;

interface Period {
  used: number;
  reserved: number;
  tasks: number;
}

async function periodOf({ platform }: ScenarioTools, { tenantId }: Member): Promise<Period> {
  const { rows } = await platform.look.query<Period>(
    "SELECT sum(used)::int AS used, sum(reserved)::int AS reserved, (SELECT count(*)::int FROM tasks t WHERE t.tenant_id = $1) AS tasks FROM usage_periods WHERE tenant_id = $1",
    [tenantId],
  );
  return rows[0] ?? { used: -1, reserved: -1, tasks: -1 };
}

async function disturb({ platform }: ScenarioTools, how: (typeof RACES)[number]): Promise<void> {
  if (how === "nothing") return;
  if (how === "answers lost") {
    for (const variant of ["committed", "lost"] as const) void platform.postgres.loseNext("admit_tasks", variant);
    return;
  }
  await platform.processes["task-submit"].arm(`${how}:kill#${PLACES}`);
}

export const QUOTA_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-30",
    title: `${RACERS} submits at once for ${PLACES} executions, ${ROUNDS} times: undisturbed, without answers, and with task-submit killed on both sides of its statement`,
    weight: 0,
    async run(tools) {
      const seen = new Map<string, number>();
      for (let round = 0; round < ROUNDS; round++) {
        const how = RACES[round % RACES.length] ?? "nothing";
        const member = await tools.platform.tenants.add({ ...UNLIMITED, name: `raced-${round}`, subscriptions: { [plugin.name]: PLACES } });
        await disturb(tools, how);
        await tools.send(RACERS, () => ({ apiKey: member.key }), RACERS);
        tools.platform.postgres.calm();
        const { used, reserved, tasks } = await periodOf(tools, member);
        tools.sure(`${tasks} of ${RACERS} accepted for ${PLACES}, ${used} used (${how})`, tasks === PLACES && used === PLACES, "I8");
        tools.sure(`${reserved} still reserved (${how})`, reserved === 0, "I8");
        const outcome = `${tasks} accepted and ${reserved} still reserved with ${how}`;
        seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
      }
      tools.say(`F-30 of ${RACERS} for ${PLACES}: ${[...seen].map(([outcome, times]) => `${times} × ${outcome}`).join(", ")}`);
    },
  },
  {
    id: "F-31",
    title: "executors die with reservations in their hands and calls that are paid, and nobody comes before the deadline",
    weight: 0,
    async run(tools) {
      const { platform } = tools;
      const executors = [platform.processes["task-execute-1"], platform.processes["task-execute-2"]];
      const member = await platform.tenants.add({ ...UNLIMITED, name: "orphaned", subscriptions: { [plugin.name]: HELD } });
      const held = tools.send(HELD, () => ({ apiKey: member.key, slowMs: 30_000, deadlineMs: 9_000, deserves: { status: ["failed"] } }));
      const paid = async () =>
        Number((await platform.look.query<{ n: string }>("SELECT count(*) AS n FROM llm_calls WHERE tenant_id = $1 AND state = 'done'", [member.tenantId])).rows[0]?.n);
      for (let i = 0; i < 160 && (await paid()) < 2 * HELD; i++) await delay(50);
      tools.sure(`${await paid()} calls are paid`, (await paid()) === 2 * HELD);
      await Promise.all(executors.map((executor) => executor.stop("SIGKILL")));
      const before = await periodOf(tools, member);
      tools.sure(`${before.reserved} reserved while nobody works`, before.reserved === HELD);
      await delay(9_000);
      await Promise.all(executors.map((executor) => executor.start()));
      await held;
      const after = await periodOf(tools, member);
      tools.sure(`${after.reserved} reserved after the sweep`, after.reserved === 0, "I8");
      const { rows } = await platform.look.query<{ unbilled: string; paid: string }>(
        `SELECT (SELECT coalesce(sum(unbilled_micro_usd), 0) FROM usage_days WHERE tenant_id = $1) AS unbilled,
          (SELECT coalesce(sum(cost_micro_usd), 0) FROM llm_calls WHERE tenant_id = $1 AND state IN ('done', 'failed')) AS paid`,
        [member.tenantId],
      );
      tools.sure(
        `${rows[0]?.unbilled} of ${rows[0]?.paid} micro-USD are settled, billed to nobody`,
        rows[0] !== undefined && Number(rows[0].paid) > 0 && rows[0].unbilled === rows[0].paid,
        "I7",
      );
      await tools.send(HELD, () => ({ apiKey: member.key }));
      tools.sure("all places are free again", (await periodOf(tools, member)).used === HELD, "I8");
      tools.say(
        `F-31 ${HELD} reservations orphaned after ${2 * HELD} paid calls: ${after.reserved} left, ${rows[0]?.unbilled} of ${rows[0]?.paid} micro-USD settled unbilled, ${HELD} of ${HELD} places used again`,
      );
    },
  },
];
