/** Migrations that are killed half-way, and migrations under traffic. */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";
import { runOnce } from "../once.ts";
import { startPostgresProxy } from "../postgres-proxy.ts";
import { untilAtRest } from "../rounds.ts";
import { delay, type Scenario, type ScenarioTools } from "./scenario.ts";

/** Each the first words of a migration, after which the next one would follow. */
const AFTER = ["CREATE FUNCTION identify_key", "CREATE TABLE webhooks", "CREATE TABLE erasure_requests"];
const RANDOM_KILLS = 2;
/** As a release before the one that uses it would bring it. */
const EXPAND = `-- Why: a column and a table that nobody reads yet.
ALTER TABLE tasks ADD COLUMN fault_note text;
ALTER TABLE webhook_deliveries ADD COLUMN fault_note text NOT NULL DEFAULT '';
ALTER TABLE usage_periods ADD COLUMN fault_note int NOT NULL DEFAULT 0;
CREATE TABLE fault_notes (id uuid PRIMARY KEY, task_id uuid NOT NULL);
CREATE INDEX fault_notes_of_task ON fault_notes (task_id);
`;
/** Somebody's report holds the tables for so long. */
const HELD_MS = 5_000;

async function fresh({ platform }: ScenarioTools, name: string): Promise<string> {
  await platform.look.query(`CREATE DATABASE ${name}`);
  return Object.assign(new URL(platform.database.url), { pathname: `/${name}` }).href;
}

async function inside<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Columns, functions, indexes and policies, in one number. */
const shapeOf = (url: string): Promise<string> =>
  inside(url, async (client) => {
    const parts = [
      "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
      "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' ORDER BY p.oid::regprocedure::text",
      "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
      "SELECT tablename, policyname, roles, qual, with_check FROM pg_policies ORDER BY 1, 2",
      "SELECT name FROM schema_migrations ORDER BY name",
    ];
    const hash = createHash("sha256");
    for (const part of parts) hash.update(JSON.stringify((await client.query(part)).rows));
    return hash.digest("hex");
  });

export const MIGRATION_SCENARIOS: readonly Scenario[] = [
  {
    id: "m1",
    title: "a migration is killed between two statements, and at any moment, and run again",
    weight: 0,
    async run(tools) {
      const { platform, random } = tools;
      const bundle = platform.bundleOf("migrate");
      const whole = await fresh(tools, "aau_m_whole");
      tools.sure("a migration that nobody disturbs ends well", (await runOnce(bundle, { DATABASE_URL: whole }).ended).code === 0);
      const shape = await shapeOf(whole);
      const target = new URL(platform.database.url);
      const kills: (string | number)[] = [...AFTER, ...Array.from({ length: RANDOM_KILLS }, () => random.between(300, 900))];
      let left = 0;
      for (const [i, when] of kills.entries()) {
        const url = await fresh(tools, `aau_m_${i}`);
        const proxy = await startPostgresProxy({ host: target.hostname, port: Number(target.port) });
        try {
          const { child, ended } = runOnce(bundle, { DATABASE_URL: Object.assign(new URL(url), { port: String(proxy.port) }).href });
          void (typeof when === "number" ? delay(when) : proxy.loseNext(when, "committed")).then(() => child.kill("SIGKILL"));
          const { code } = await ended;
          tools.sure(`killed ${typeof when === "number" ? `after ${when} ms` : `after ${when}`}`, code !== 0);
        } finally {
          await proxy.close();
        }
        left += await inside(url, async (client) => (await client.query("SELECT 1 FROM pg_class WHERE relname = 'tasks'")).rows.length);
        const again = await runOnce(bundle, { DATABASE_URL: url }).ended;
        tools.sure(`the next run completes it (${when}): ${again.code === 0 ? "" : again.said.slice(-200)}`, again.code === 0);
        tools.sure(`the schema is the one of a run that nobody killed (${when})`, (await shapeOf(url)) === shape);
        await platform.look.query(`DROP DATABASE aau_m_${i} WITH (FORCE)`);
      }
      await platform.look.query("DROP DATABASE aau_m_whole WITH (FORCE)");
      tools.say(`m1 ${kills.length} migrations killed: ${left} left something behind, and another run brought every one to the same schema`);
    },
  },
  {
    id: "F-34",
    title: "m2: migrations run under traffic, beside a report that holds the tables, and the bundles go on with the larger schema",
    weight: 1,
    async run(tools, count) {
      const { platform } = tools;
      const bundle = platform.bundleOf("migrate");
      const since = Date.now();
      const some = Math.max(count, 40);
      const traffic = tools.send(some, (i) => ({ isPlan: i % 4 === 0, apiKey: platform.keys.unlimited }));
      await delay(1_500);
      for (let i = 0; i < 2; i++) {
        const again = await runOnce(bundle, { DATABASE_URL: platform.database.url }).ended;
        tools.sure(`with nothing to do it does nothing: ${again.said.trim().slice(-100)}`, again.code === 0 && again.said.includes("up to date"));
      }
      await writeFile(join(dirname(bundle), "migrations", "9999_expand.sql"), EXPAND);
      const report = platform.look.connect().then(async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT count(*) FROM tasks");
        await delay(HELD_MS);
        await client.query("COMMIT");
        client.release();
      });
      await delay(300);
      const expanding = runOnce(bundle, { DATABASE_URL: platform.database.url }).ended;
      const slowestMs = await slowestRead(tools, expanding);
      const expanded = await expanding;
      tools.sure(`the larger schema is there: ${expanded.said.trim().slice(-200)}`, expanded.code === 0 && expanded.said.includes("9999_expand"));
      await report;
      await traffic;
      // The same bundles, on connections that knew the smaller schema.
      await tools.send(some, (i) => ({ isPlan: i % 4 === 0 }));
      await untilAtRest(tools);
      const errors = await errorsSince(platform.sources.journalFile, since);
      tools.sure(`answers that are no answer and no 503: ${[...errors].map(([status, n]) => `${n} × ${status}`).join(", ") || "none"}`, errors.size === 0);
      const retries = expanded.said.split("is in use").length - 1;
      tools.say(`F-34 ${2 * some} tasks under three migrations; ${retries} times a table was in use; the slowest read took ${slowestMs} ms; errors other than 503: ${errors.size}`);
    },
  },
];

async function slowestRead({ platform }: ScenarioTools, until: Promise<unknown>): Promise<number> {
  let isOver = false;
  void until.then(() => {
    isOver = true;
  });
  let slowest = 0;
  while (!isOver) {
    const startedAt = performance.now();
    await fetch(`${platform.api.url}/v1/tasks/none`, { headers: { authorization: `Bearer ${platform.keys.unlimited}` } }).then(
      (answer) => answer.arrayBuffer(),
      () => null,
    );
    await platform.look.query("SELECT 1 FROM tasks LIMIT 1");
    slowest = Math.max(slowest, performance.now() - startedAt);
    await delay(100);
  }
  return Math.round(slowest);
}

/** By status; what has none is a broken connection. */
async function errorsSince(journalFile: string, since: number): Promise<Map<string, number>> {
  const errors = new Map<string, number>();
  for (const line of (await readFile(journalFile, "utf8")).split("\n").filter(Boolean)) {
    const { at, outcome, status } = JSON.parse(line) as { at: number; outcome: string; status?: number | null };
    if (at < since || outcome === "invoke" || outcome === "ok" || status === 503) continue;
    errors.set(String(status ?? "no answer"), (errors.get(String(status ?? "no answer")) ?? 0) + 1);
  }
  return errors;
}
