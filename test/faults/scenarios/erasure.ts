/** Erasures whose worker is killed after every store, that meet running tasks, and that a backup undoes. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { publicId } from "../../../shared/ids.ts";
import { TASK_TABLES, USER_TABLES } from "../../../shared/privacy/erase-rows.ts";
import { askToForget, hire, type Leaver, live, passTime, searchFor, totalOf, untilForgotten } from "../leaver.ts";
import { delay, type Scenario, type ScenarioTools } from "./scenario.ts";

const run = promisify(execFile);
const REPLAY = fileURLToPath(new URL("../../../scripts/erasure-replay.ts", import.meta.url));

const STORES = ["caches", ...USER_TABLES.map(({ name }) => name), "object", "artifacts", ...TASK_TABLES.flatMap(({ name }) => (name === "artifacts" ? [] : [name]))];
/** g1 … g9 of RELIABILITY.md 1.2, of which there are more by now, and gX. */
const POINTS = ["block", "cancel", ...STORES, "search"].map((name) => `erase.after_${name}`);
/** In the short form, beside the request's own. */
const FEW = ["erase.after_artifacts", "erase.after_search"];
const RESTORE_PATIENCE_MS = 90_000;

const named = (word: string) => `${word}${randomBytes(4).toString("hex")}`;

/** Kills the worker at each of these points, one life a point, and lets the last one finish. */
async function forgetInPieces(tools: ScenarioTools, leaver: Leaver, points: readonly string[]): Promise<void> {
  const { platform } = tools;
  const { "user-erase": worker, "erasure-request": door } = platform.processes;
  await door.arm("erasure.after_commit:kill#1");
  tools.sure("whoever asks is told nothing by a door that was killed", (await askToForget(tools, leaver)) === null);
  await door.untilReady();
  const erasure = await askToForget(tools, leaver);
  if (erasure === null) throw new Error("an erasure cannot be asked for");
  let kills = 1;
  for (const point of points) {
    const before = worker.hits(point);
    await worker.arm(`${point}:kill#1`);
    await passTime((text, values) => platform.look.query(text, values), erasure);
    const isOver = await untilForgotten(tools, erasure, () => worker.hits(point) > before);
    tools.sure(`killed at ${point}`, worker.hits(point) > before);
    if (!isOver) tools.sure(`no certificate while ${point} is not behind it`, !(await isCertified(tools, erasure)), "I12");
    kills += 1;
  }
  await worker.arm("");
  await passTime((text, values) => platform.look.query(text, values), erasure);
  tools.sure("the erasure ends", await untilForgotten(tools, erasure), "I12");
  tools.say(`${leaver.word}: ${kills} kills on the way to the certificate`);
}

const isCertified = async ({ platform }: ScenarioTools, erasure: string): Promise<boolean> =>
  (await platform.look.query("SELECT 1 FROM erasure_requests WHERE id = $1 AND certificate IS NOT NULL", [erasure])).rows.length > 0;

async function certifiedOf({ platform }: ScenarioTools, { tenantId, userId }: Leaver, client: Pick<pg.Client, "query"> = platform.look): Promise<boolean> {
  const { rows } = await client.query("SELECT 1 FROM erasure_requests WHERE tenant_id = $1 AND subject_sha256 = erasure_subject($1, $2) AND certificate IS NOT NULL", [
    tenantId,
    userId,
  ]);
  return rows.length > 0;
}

export const ERASURE_SCENARIOS: readonly Scenario[] = [
  {
    id: "g1-gX",
    title: "whoever erases somebody is killed after every store, before and after the look, and when it was asked for",
    isShort: true,
    weight: 0,
    async run(tools) {
      const leaver = await hire(tools, named("gone"));
      await live(tools, leaver, tools.isShort ? 3 : 6);
      // A minute passes: until then a file may be on its way. The full form waits for it.
      if (tools.isShort) await tools.platform.look.query("UPDATE tasks SET completed_at = completed_at - interval '1 minute' WHERE user_id = $1", [leaver.userId]);
      const foundBefore = totalOf(await searchFor(tools.platform, leaver.word));
      await forgetInPieces(tools, leaver, tools.isShort ? FEW : POINTS);
      const found = await searchFor(tools.platform, leaver.word);
      tools.erased.push({ who: leaver.word, isCertified: await certifiedOf(tools, leaver), foundBefore, found });
      tools.say(`${leaver.word}: found ${foundBefore} times before, ${totalOf(found)} after`);
    },
  },
  {
    id: "F-33",
    title: "somebody is erased while their tasks run and store files, half-way and again; then a backup from before comes back",
    weight: 0,
    async run(tools) {
      const leaver = await hire(tools, named("left"));
      await live(tools, leaver, 6);
      const backup = await tools.platform.database.backUp();
      try {
        // Some are about to store their files, others are far from it.
        const running = Promise.all([live(tools, leaver, 4, { slowMs: 6_000 }), live(tools, leaver, 4, { slowMs: 25_000 })]);
        await delay(2_000);
        const foundBefore = totalOf(await searchFor(tools.platform, leaver.word));
        await forgetInPieces(tools, leaver, ["erase.after_cancel", "erase.after_object", "erase.after_llm_calls"]);
        await running;
        const found = await searchFor(tools.platform, leaver.word);
        tools.erased.push({ who: leaver.word, isCertified: await certifiedOf(tools, leaver), foundBefore, found });
        tools.say(`${leaver.word}: erased with tasks under way; found ${foundBefore} times before, ${totalOf(found)} after`);
        // With a key that is gone nothing begins any more; the auditor looks that the refusal left nothing.
        await live(tools, leaver, 1, { slowMs: 1 });
        await comeBack(tools, leaver, await backup.restore());
      } finally {
        await backup.remove();
      }
    },
  },
];

/** A server with the backup, `npm run erasure:replay`, and a worker of its own. */
async function comeBack(tools: ScenarioTools, leaver: Leaver, { url, stop }: { url: string; stop(): Promise<void> }): Promise<void> {
  const { platform } = tools;
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  try {
    await client.connect();
    const foundBefore = totalOf(await searchFor(platform, leaver.word, url));
    const env = {
      PATH: process.env.PATH,
      DATABASE_URL: url,
      S3_ENDPOINT: platform.sources.s3.endpoint,
      S3_BUCKET: platform.sources.s3.bucket,
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
    };
    const { stdout } = await run(process.execPath, ["--import", "tsx", REPLAY], { env });
    const worker = await platform.spare("user-erase-restored", "user-erase", { DATABASE_URL: url });
    await worker.start();
    const until = performance.now() + RESTORE_PATIENCE_MS;
    while (performance.now() < until && !(await certifiedOf(tools, leaver, client))) {
      const { rows } = await client.query<{ id: string }>("SELECT id FROM erasure_requests WHERE user_id = $1", [leaver.userId]);
      for (const { id } of rows) {
        await passTime((text, values) => client.query(text, values), id);
        await tell(worker.port, platform.serviceToken, id);
      }
      // Whom nobody remembers is not erased, however long one waits.
      if (rows.length === 0) break;
      await delay(1_000);
    }
    const found = await searchFor(platform, leaver.word, url);
    tools.erased.push({ who: `${leaver.word}, back with a backup`, isCertified: await certifiedOf(tools, leaver, client), foundBefore, found });
    tools.say(`${leaver.word} is back with the backup, ${foundBefore} times; ${stdout.trim()} Found ${totalOf(found)} times after`);
    await worker.stop();
  } finally {
    await client.end();
    await stop();
  }
}

/** As the bridge does. */
async function tell(port: number, serviceToken: string, erasure: string): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}/`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${serviceToken}`,
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": crypto.randomUUID(),
      "ce-source": "/faults",
      "ce-type": "io.aau.erasure.requested",
    },
    body: JSON.stringify({ erasure_id: publicId("erasure", erasure) }),
  });
  await answer.arrayBuffer();
}
