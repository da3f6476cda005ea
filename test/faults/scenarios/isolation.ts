/** Two tenants at once in conversations of one name, while Redis is emptied; each asks for what is the other's. */
import { publicId } from "../../../shared/ids.ts";
import { UNLIMITED } from "../platform.ts";
import plugin, { FILER } from "../plugin.ts";
import { delay, during, type Scenario } from "./scenario.ts";

const EACH = 10;

export const ISOLATION_SCENARIOS: readonly Scenario[] = [
  {
    id: "I11",
    title: "two tenants work in conversations of one name, remember, and ask for each other's tasks",
    weight: 0,
    async run(tools) {
      const { platform, client } = tools;
      const neighbour = await platform.tenants.add({ ...UNLIMITED, name: "neighbour", subscriptions: { [plugin.name]: null, [FILER]: null } });
      await platform.tenants.addEndpoint(neighbour.tenantId);
      const keys = [platform.keys.unlimited, neighbour.key];
      await during(
        tools,
        tools.send(
          2 * EACH,
          (i) => ({ apiKey: keys[i % 2] ?? "", conversation: "the-same-talk", directives: "[recall]", isPlan: i % 5 === 0, deserves: { status: ["success"] } }),
          4,
        ),
        async () => {
          await delay(1_500);
          await platform.redis.flush();
        },
      );
      const statuses: (number | null)[] = [];
      for (const [i, apiKey] of keys.entries()) {
        const { rows } = await platform.look.query<{ id: string }>("SELECT id FROM tasks WHERE tenant_id = $1 ORDER BY id DESC LIMIT $2", [
          platform.tenants.tenantOf(keys[1 - i] ?? ""),
          EACH,
        ]);
        for (const { id } of rows) statuses.push(await client.peek({ marker: `peek-${i}`, apiKey, deadlineMs: 0 }, publicId("task", id)));
      }
      const found = statuses.filter((status) => status !== 404).length;
      tools.sure(`${found} of ${statuses.length} foreign tasks were found`, statuses.length > 0 && found === 0, "I11");
      const { rows } = await platform.look.query<{ n: string }>("SELECT count(*) AS n FROM conversations WHERE name = 'the-same-talk'");
      tools.sure(`${rows[0]?.n} conversations of that name`, rows[0]?.n === "2", "I11");
      tools.say(`I11 ${2 * EACH} tasks of two tenants in conversations of one name; ${found} of ${statuses.length} foreign tasks found`);
    },
  },
];
