/** (e) A page of `GET /v1/tasks` with a thousand and with a million rows of one tenant: the same time. */

import * as v from "valibot";
import { median, millis, quantile, ratio, table, whole } from "./figures.ts";
import { badOf, describeBad } from "./load.ts";
import type { Part } from "./part.ts";
import type { Stage } from "./stage.ts";

const SMALL = 1_000;
const LARGE = 1_000_000;
const READS = 300;
const ROUNDS = 3;
const Page = v.object({ tasks: v.array(v.object({ task_id: v.string() })), next_cursor: v.nullable(v.string()) });

/** Ids as the platform makes them: UUIDv7 in the order of time, a millisecond apart. One task in a hundred failed, half are of another plugin. */
async function fill(stage: Stage, tenantId: string, rows: number): Promise<void> {
  await stage.db.query(
    `INSERT INTO tasks (id, tenant_id, environment, plugin_name, plan, status, input, routing_method, routing_confidence, deadline, request_id, created_at, completed_at)
     SELECT (lpad(to_hex(1700000000000 + i), 12, '0') || '7' || substr(md5($1::text || i), 1, 3) || '8' || substr(md5($1::text || i), 4, 15))::uuid, $1::uuid, 'live',
       CASE WHEN i % 2 = 0 THEN 'bench-noop' ELSE 'bench-wait' END, '[]', CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'success' END, '{"command": "x", "attachments": []}', 'explicit', 1,
       now(), 'req', to_timestamp((1700000000000 + i) / 1000.0), to_timestamp((1700000000000 + i) / 1000.0)
     FROM generate_series(1::bigint, $2::bigint) i`,
    [tenantId, rows],
  );
}

export const pages: Part = {
  letter: "e",
  title: `GET /v1/tasks, pages of 20 with ${whole(SMALL)} and ${whole(LARGE)} rows of one tenant, one at a time, ${ROUNDS} × ${READS} reads`,

  async run(stage, print) {
    await stage.bundle(["task-list"]);
    await stage.clear();
    const [small, large] = stage.tenants;
    if (!small || !large) throw new Error("two tenants are needed");
    await fill(stage, small.tenantId, SMALL);
    await fill(stage, large.tenantId, LARGE);
    await stage.db.query("VACUUM ANALYZE tasks");
    const list = await stage.start("task-list");
    const lost: string[] = [];

    /** Where the middle of all rows is, as a caller gets there: a cursor that the platform sealed. */
    async function middle(key: string, filter: string): Promise<string> {
      const answer = await fetch(`${list.url}/v1/tasks?limit=100${filter}`, { headers: { authorization: `Bearer ${key}` } });
      return v.parse(Page, await answer.json()).next_cursor ?? "";
    }

    async function walk(key: string, pagesToGo: number): Promise<string> {
      let cursor = await middle(key, "");
      for (let i = 0; i < pagesToGo; i++) {
        const answer = await fetch(`${list.url}/v1/tasks?limit=100&cursor=${cursor}`, { headers: { authorization: `Bearer ${key}` } });
        cursor = v.parse(Page, await answer.json()).next_cursor ?? cursor;
      }
      return cursor;
    }

    const views = [
      { name: "first page", path: async () => "" },
      { name: "deep page by cursor", path: async (key: string) => `&cursor=${await walk(key, key === large.key ? 400 : 4)}` },
      { name: "status=failed", path: async () => "&status=failed" },
      { name: "status=success", path: async () => "&status=success" },
      { name: "plugin=bench-noop", path: async () => "&plugin=bench-noop" },
      { name: "both filters", path: async () => "&plugin=bench-noop&status=failed" },
      { name: "plugin with no task", path: async () => "&plugin=nobody" },
    ];
    const rows: string[][] = [];
    for (const { name, path } of views) {
      const times = new Map<string, number[]>();
      const jobs = await Promise.all([small, large].map(async ({ key }) => ({ key, path: `/v1/tasks?limit=20${await path(key)}` })));
      for (let round = 0; round <= ROUNDS; round++) {
        for (const job of jobs) {
          const report = await stage.load.run({
            url: list.url,
            method: "GET",
            connections: 1,
            count: READS,
            requests: [{ path: job.path, headers: { authorization: `Bearer ${job.key}` } }],
            expect: { status: 200, contains: '"tasks":' },
          });
          if (badOf(report) > 0) lost.push(`${name}: ${describeBad(report)}`);
          // The first round warms up.
          if (round > 0) times.set(job.key, [...(times.get(job.key) ?? []), quantile(report.answered, 0.5)]);
        }
      }
      const [few, many] = [small, large].map(({ key }) => median(times.get(key) ?? []));
      rows.push([name, millis(few ?? Number.NaN), millis(many ?? Number.NaN), ratio((many ?? Number.NaN) / (few ?? Number.NaN))]);
    }
    print(table(["p50", `${whole(SMALL)} rows`, `${whole(LARGE)} rows`, "ratio"], rows));
    await list.stop();
    await stage.clear();
    return lost;
  },
};
