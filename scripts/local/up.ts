/**
 * `npm run up`: makes or finds the parts, starts everything, does the main jobs once, and stays until Ctrl-C.
 *
 * `--once` stops after the first tasks, with exit code 0 or 1. `--isolated` runs every function as a process of its own from its
 * production bundle, the way Knative does.
 */
import { rm } from "node:fs/promises";
import { relative } from "node:path";
import { parseArgs } from "node:util";
import { openDatabase } from "../../shared/db/database.ts";
import { ConfigError, readConfig } from "../../shared/host/config.ts";
import { migrate } from "../migrate.ts";
import { seed } from "../seed.ts";
import { runFirstTasks } from "./first-task.ts";
import { openHome, platformSecrets, writeShellEnv } from "./home.ts";
import { findParts } from "./parts.ts";
import { startPlatform } from "./processes.ts";
import { bold, cyan, dim, green, red, yellow } from "./terminal.ts";

const { values: flags } = parseArgs({ options: { once: { type: "boolean", default: false }, isolated: { type: "boolean", default: false } } });
const print = (line: string) => console.log(line);
const stack: { name: string; stop(): Promise<unknown> }[] = [];
let stopping = false;

async function shutDown(code: number): Promise<never> {
  if (!stopping) {
    stopping = true;
    for (const part of stack.reverse()) await part.stop().catch((error: unknown) => console.error(red(`${part.name}: ${error instanceof Error ? error.message : error}`)));
  }
  process.exit(code);
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stopping) return;
    print(dim("\nStopping …"));
    void shutDown(flags.once ? 130 : 0);
  });
}

try {
  const startedAt = performance.now();
  const port = Number(process.env.AAU_PORT ?? 8080);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new ConfigError("AAU_PORT must be a port number.");
  const home = openHome(process.env.AAU_HOME ?? ".aau");
  print(bold("AI Agents Universe"));

  const parts = await findParts(home, process.env, (part) => stack.push(part));
  for (const { name, about } of parts.list) print(`  ${green("✓")} ${name.padEnd(12)} ${dim(about)}`);
  const applied = await migrate(parts.env.DATABASE_URL ?? "");
  print(`  ${green("✓")} ${"migrations".padEnd(12)} ${dim(applied.length === 0 ? "up to date" : applied.join(", "))}`);

  const env: Record<string, string | undefined> = {
    // Receivers and servers that one tries out stand on this machine.
    AAU_ALLOW_PRIVATE_WEBHOOKS: "true",
    AAU_ALLOW_PRIVATE_EGRESS: "true",
    ...parts.env,
    ...platformSecrets(home),
    PUBLIC_URL: `http://127.0.0.1:${port}`,
  };
  readConfig(env);
  const platform = await startPlatform({ home, env, port, isolated: flags.isolated, onStart: (part) => stack.push(part) });
  for (const { name, about } of platform.list) print(`  ${green("✓")} ${name.padEnd(12)} ${dim(about)}`);

  const db = await openDatabase({ url: env.DATABASE_URL ?? "", driver: env.DATABASE_DRIVER === "neon" ? "neon" : "pg", poolSize: 1 });
  const keys = await seed(db, home, platform.plugins).finally(() => db.close());
  const adminKey = keys["test-tenant-1"]?.admin_key ?? "";
  print(`  ${green("✓")} ${"tenants".padEnd(12)} ${dim(`${Object.keys(keys).join(", ")}; keys in ${shown(home.path("keys.json"))}`)}`);
  print(`  ${parts.hasModel ? green("✓") : yellow("!")} ${"models".padEnd(12)} ${parts.hasModel ? dim(parts.models) : yellow(parts.models)}`);
  print(dim(`  ready in ${((performance.now() - startedAt) / 1000).toFixed(1)} s\n`));

  const { PATH, HOME, ...shared } = env;
  const envFile = writeShellEnv(home, {
    ...shared,
    ...platform.doors.gateways,
    ...platform.doors.registry,
    AAU_SERVICE_TOKEN: env.SERVICE_TOKEN,
    AAU_URL: platform.url,
    AAU_KEY: adminKey,
  });
  // It names ports that somebody else's servers may have next.
  stack.push({ name: "settings for a shell", stop: () => rm(envFile, { force: true }) });

  const taskId = await runFirstTasks(platform.url, adminKey, print);
  if (flags.once) await shutDown(taskId ? 0 : 1);
  print(whatNext(platform.url, adminKey, taskId, shown(home.folder)));
} catch (error) {
  if (!stopping) {
    console.error(red(error instanceof Error ? error.message : String(error)));
    if (error instanceof Error && error.cause instanceof Error) console.error(dim(error.cause.message));
    await shutDown(1);
  }
}

function shown(path: string): string {
  const short = relative(process.cwd(), path);
  return short === "" || short.startsWith("..") ? path : short;
}

function whatNext(url: string, key: string, taskId: string | null, folder: string): string {
  const auth = `-H "Authorization: Bearer ${key}"`;
  return [
    "",
    bold("Try next"),
    dim("  the review as a file"),
    cyan(`  curl -sL ${auth} ${url}/v1/tasks/${taskId ?? "TASK"}/artifacts/review.md`),
    dim("  a review of your own change, waiting for the answer"),
    cyan(`  curl -s ${auth} -H "Content-Type: application/json" -H "Prefer: wait=25" ${url}/v1/tasks \\`),
    cyan(
      `    -d '{"command": "Review this change", "attachments": [{"name": "app.js", "media_type": "text/javascript", "content": "app.get(\\"/run\\", (q, r) => r.send(eval(q.query.code)))"}]}'`,
    ),
    dim("  the tickets that are open now"),
    cyan(`  curl -s ${auth} -H "Content-Type: application/json" -H "Prefer: wait=25" ${url}/v1/tasks -d '{"command": "list open tickets"}'`),
    dim("  your tasks"),
    cyan(`  curl -s ${auth} "${url}/v1/tasks?limit=5"`),
    dim("  a plugin of your own, which starts again at every change"),
    cyan(`  npx aau plugin new my-plugin && (. ${folder}/env; npx aau plugin dev my-plugin)`),
    "",
    `${dim("API")} ${url}/docs   ${dim("logs")} ${folder}/logs   ${dim("stop")} Ctrl-C`,
  ].join("\n");
}
