/** A Redis of our own: from PATH, else from the system's package manager where that works without asking. */
import { execFile } from "node:child_process";
import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { evictionPolicy, evicts } from "../../shared/redis/eviction.ts";
import { type Child, freePort, startChild, untilReady } from "./child.ts";

const run = promisify(execFile);
const INSTALL_TIMEOUT_MS = 300_000;

export const NO_REDIS = "Redis is missing: install redis-server or valkey-server (Debian: apt-get install redis-server, macOS: brew install redis), or set REDIS_URL.";

export interface LocalRedis {
  url: string;
  child: Child;
  stop(): Promise<void>;
}

/** On a free loopback port; data in `dir`, append-only, so that a restart keeps the streams. */
export async function startRedis(dir: string, { logFile, persist = true, port }: { logFile?: string; persist?: boolean; port?: number } = {}): Promise<LocalRedis> {
  const program = onPath("redis-server") ?? onPath("valkey-server") ?? (await install());
  mkdirSync(dir, { recursive: true });
  const at = port ?? (await freePort());
  const persistence = persist ? ["--appendonly", "yes", "--appendfsync", "everysec"] : ["--appendonly", "no"];
  const child = startChild({
    name: "redis",
    command: program,
    args: ["--port", String(at), "--bind", "127.0.0.1", "--dir", dir, "--save", "", ...persistence, "--maxmemory-policy", "noeviction", "--daemonize", "no"],
    env: { PATH: process.env.PATH },
    logFile,
  });
  const url = `redis://127.0.0.1:${at}`;
  await untilReady("redis", child, () => ping(url));
  return { url, child, stop: () => child.stop() };
}

/** Throws unless the server answers and keeps what it is given: evicting would drop streams. */
export async function checkRedis(url: string): Promise<void> {
  await ping(url, async (redis) => {
    const policy = await evictionPolicy(redis);
    if (policy !== null) throw evicts(policy);
  });
}

async function ping(url: string, more?: (redis: Redis) => Promise<void>): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 0, retryStrategy: () => null, connectTimeout: 2_000 });
  redis.on("error", () => {});
  try {
    await redis.connect();
    await redis.ping();
    await more?.(redis);
  } finally {
    redis.disconnect();
  }
}

function onPath(program: string): string | null {
  for (const folder of [...(process.env.PATH ?? "").split(delimiter), "/usr/local/bin", "/opt/homebrew/bin"]) {
    try {
      const file = join(folder, program);
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  }
  return null;
}

async function install(): Promise<string> {
  try {
    if (onPath("apt-get") && process.getuid?.() === 0) {
      const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
      await run("apt-get", ["update", "-qq"], { env, timeout: INSTALL_TIMEOUT_MS });
      await run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "redis-server"], { env, timeout: INSTALL_TIMEOUT_MS });
    } else if (onPath("brew")) await run("brew", ["install", "redis"], { timeout: INSTALL_TIMEOUT_MS });
  } catch (cause) {
    throw new Error(NO_REDIS, { cause });
  }
  const program = onPath("redis-server");
  if (!program) throw new Error(NO_REDIS);
  return program;
}
