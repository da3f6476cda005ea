/**
 * How long each bundle takes from its start to the first 200, beside an empty server: `tsx scripts/cold-start.ts [name…]` after
 * `npm run build`. Its addresses lead nowhere: what is measured is the process, not the database.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { findFunctions, ROOT } from "./functions.ts";

const LIMIT_MS = 15_000;
const NOWHERE = "127.0.0.1:9";

/** Enough for any function to start; nothing answers at these addresses. */
export const PLACEHOLDERS: Readonly<Record<string, string>> = {
  DATABASE_URL: `postgres://nobody@${NOWHERE}/nothing`,
  REDIS_URL: `redis://${NOWHERE}`,
  S3_ENDPOINT: `http://${NOWHERE}`,
  AWS_ACCESS_KEY_ID: "nobody",
  AWS_SECRET_ACCESS_KEY: "nothing",
  CAPABILITY_KEY: "0".repeat(32),
  SERVICE_TOKEN: "0".repeat(32),
  SECRETS_KEY: "0".repeat(32),
  LLM_GATEWAY_URL: `http://${NOWHERE}`,
  SCOPE_GATEWAY_URL: `http://${NOWHERE}`,
};

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("there is no free port");
  return address.port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ port, host: "127.0.0.1", path: "/health/readiness", agent: false, timeout: 1000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on("error", () => resolve(false)).on("timeout", () => request.destroy());
  });
}

/** Milliseconds from spawn to the first 200 of one start. Throws when the process ends or takes too long. */
export async function coldStart(entry: string, env: Readonly<Record<string, string>> = PLACEHOLDERS): Promise<number> {
  const port = await freePort();
  const startedAt = performance.now();
  const child = spawn(process.execPath, [entry], { env: { ...env, PORT: String(port), LOG_LEVEL: "silent" }, stdio: "ignore" });
  const exited = once(child, "exit");
  try {
    while (!(await answers(port))) {
      if (child.exitCode !== null) throw new Error(`${entry} ended with ${child.exitCode}`);
      if (performance.now() - startedAt > LIMIT_MS) throw new Error(`${entry} did not answer`);
      await wait(1);
    }
    return performance.now() - startedAt;
  } finally {
    child.kill("SIGKILL");
    await exited;
  }
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

if (process.argv[1] === import.meta.filename) {
  const named = process.argv.slice(2);
  const folder = await mkdtemp(join(tmpdir(), "cold-start-"));
  const empty = join(folder, "empty.mjs");
  await writeFile(empty, `import { createServer } from "node:http"; createServer((_, reply) => reply.end()).listen(process.env.PORT);`);
  const functions = (await findFunctions()).filter(({ name }) => named.length === 0 || named.includes(name));
  const entries: [string, string][] = [["(empty server)", empty], ...functions.map(({ name }): [string, string] => [name, join(ROOT, "dist/functions", name, "index.mjs")])];
  const built = entries.filter(([, entry]) => existsSync(entry));
  const times = new Map<string, number[]>(built.map(([name]) => [name, []]));
  // Round by round, so that a busy moment of the machine meets all of them.
  for (let round = 0; round < 7; round += 1) for (const [name, entry] of built) times.get(name)?.push(await coldStart(entry));
  for (const [name, values] of times)
    console.log(
      `${name.padEnd(24)} median ${median(values).toFixed(0).padStart(4)} ms   best ${Math.min(...values)
        .toFixed(0)
        .padStart(4)} ms`,
    );
  await rm(folder, { recursive: true });
}
