/** Keys that are revoked while somebody dies, is slow, or works for them. */
import { hashApiKey } from "../../../shared/access/api-key.ts";
import { publicId } from "../../../shared/ids.ts";
import { ask } from "../redis-server.ts";
import type { Member } from "../tenants.ts";
import { delay, type Scenario, type ScenarioTools } from "./scenario.ts";

const TRIES_AFTER = 40;
const NOBODYS_TASK = publicId("task", "00000000-0000-7000-8000-000000000000");

/** What a request with this key is told: 404 for one that is let in, 401 for one that is not. */
async function use({ platform }: ScenarioTools, key: string): Promise<number> {
  const answer = await fetch(`${platform.api.url}/v1/tasks/${NOBODYS_TASK}`, { headers: { authorization: `Bearer ${key}` } });
  await answer.arrayBuffer();
  return answer.status;
}

/** Null: no answer. */
async function revoke({ platform }: ScenarioTools, key: Member, query = ""): Promise<number | null> {
  try {
    const answer = await fetch(`${platform.api.url}/v1/api-keys/${publicId("key", key.keyId)}${query}`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${platform.keys.unlimited}` },
    });
    await answer.arrayBuffer();
    return answer.status;
  } catch {
    return null;
  }
}

function victim({ platform }: ScenarioTools): Promise<Member> {
  const tenantId = platform.tenants.tenantOf(platform.keys.unlimited);
  if (!tenantId) throw new Error("the first key belongs to nobody");
  return platform.tenants.addUser(tenantId);
}

async function acceptedAfter(tools: ScenarioTools, key: string): Promise<number> {
  let accepted = 0;
  for (let i = 0; i < TRIES_AFTER; i++) {
    if ((await use(tools, key)) !== 401) accepted += 1;
    await delay(25);
  }
  return accepted;
}

export const KEY_SCENARIOS: readonly Scenario[] = [
  {
    id: "r1",
    title: "whoever revokes a key is killed between its COMMIT and telling the caches",
    weight: 0,
    async run(tools) {
      const revoker = tools.platform.processes["api-key-revoke"];
      for (const how of ["asked again", "upkeep"] as const) {
        const key = await victim(tools);
        tools.sure("the key is let in, and cached", (await use(tools, key.key)) === 404 && (await use(tools, key.key)) === 404);
        await revoker.arm("key.before_tell:kill#1");
        tools.sure("nobody is told that the key is revoked", (await revoke(tools, key)) === null);
        await revoker.untilReady();
        const between = await use(tools, key.key);
        if (how === "asked again") tools.sure("asked again, it answers 204", (await revoke(tools, key)) === 204);
        else await (await fetch(`http://127.0.0.1:${tools.platform.processes["key-upkeep"].port}/`, { method: "POST" })).arrayBuffer();
        const accepted = await acceptedAfter(tools, key.key);
        tools.sure(`${accepted} of ${TRIES_AFTER} requests accepted afterwards (${how})`, accepted === 0);
        tools.say(
          `r1 SIGKILL at key.before_tell: ${between === 401 ? "refused" : "still let in"} before anybody was answered, ${accepted} of ${TRIES_AFTER} let in after (${how})`,
        );
      }
    },
  },
  {
    id: "r2",
    title: "a slow reader brings back what it read of a key before it was revoked",
    weight: 0,
    async run(tools) {
      const reader = tools.platform.processes["task-poll"];
      await reader.arm("key.before_fill:delay=1500");
      let total = 0;
      for (let round = 0; round < 3; round++) {
        const key = await victim(tools);
        await ask(tools.platform.redis.url, (redis) => redis.del(`auth:${hashApiKey(key.key)}`));
        const slow = use(tools, key.key);
        await delay(500);
        tools.sure("revoked while it was read", (await revoke(tools, key)) === 204);
        await slow;
        const accepted = await acceptedAfter(tools, key.key);
        total += accepted;
        tools.sure(`${accepted} of ${TRIES_AFTER} requests accepted after the 204`, accepted === 0);
      }
      tools.sure("the reader was slow", reader.hits("key.before_fill") >= 3);
      await reader.arm("");
      tools.say(`r2 a slow reader fills the cache after the 204: ${total} of ${3 * TRIES_AFTER} let in`);
    },
  },
  {
    id: "F-29",
    title: "keys are revoked while their tasks run: those go on, unless they are to go too",
    weight: 0,
    async run(tools) {
      const { unlimited } = tools.platform.keys;
      for (const [query, status] of [
        ["", "success"],
        ["?cascade=true", "cancelled"],
      ] as const) {
        const key = await victim(tools);
        const sent = tools.send(6, (i) => ({ apiKey: key.key, readKey: unlimited, isPlan: i % 3 === 0, slowMs: 2_500, deserves: { status: [status] } }));
        await untilRunning(tools, key, 6);
        tools.sure(`revoking${query} answers 204`, (await revoke(tools, key, query)) === 204);
        await sent;
        const { rows } = await tools.platform.look.query<{ status: string; n: string }>("SELECT status, count(*) AS n FROM tasks WHERE api_key_id = $1 GROUP BY 1", [key.keyId]);
        tools.say(`F-29 revoked${query} with 6 tasks under way: ${rows.map((row) => `${row.n} ${row.status}`).join(", ")}`);
      }
    },
  },
];

async function untilRunning({ platform }: ScenarioTools, { keyId }: Member, count: number): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const { rows } = await platform.look.query<{ n: string }>("SELECT count(*) AS n FROM tasks WHERE api_key_id = $1 AND status = 'running'", [keyId]);
    if (Number(rows[0]?.n) >= count) return;
    await delay(50);
  }
  throw new Error("tasks do not begin");
}
