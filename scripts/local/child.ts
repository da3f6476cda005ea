/** Child processes of the local platform: each ends with its parent, and says what it said when it dies early. */
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { createServer } from "node:net";

export interface Child {
  readonly process: ChildProcess;
  readonly exited: Promise<number | null>;
  /** SIGTERM, then SIGKILL after `graceMs`. */
  stop(graceMs?: number): Promise<void>;
}

export interface ChildOptions {
  name: string;
  command: string;
  args: readonly string[];
  env?: Record<string, string | undefined>;
  /** Where its output goes; nowhere unless given. */
  logFile?: string;
  cwd?: string;
}

const alive = new Set<ChildProcess>();

/** A parent that dies of an exception must not leave children behind; SIGKILL of the parent is the only way to. */
function reap(): void {
  for (const child of alive) child.kill("SIGKILL");
}

export function startChild({ command, args, env, logFile, cwd }: ChildOptions): Child {
  const child = spawn(command, [...args], { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
  const log = logFile ? createWriteStream(logFile, { flags: "a", mode: 0o600 }) : null;
  for (const stream of [child.stdout, child.stderr]) {
    if (log) stream?.pipe(log, { end: false });
    else stream?.resume();
  }
  const exited = new Promise<number | null>((resolve) => {
    child.once("error", () => resolve(null));
    child.once("exit", (code) => resolve(code));
  });
  if (alive.size === 0) process.once("exit", reap);
  alive.add(child);
  exited.then(() => {
    alive.delete(child);
    if (alive.size === 0) process.off("exit", reap);
    log?.end();
  });
  return {
    process: child,
    exited,
    async stop(graceMs = 10_000) {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      const kill = setTimeout(() => child.kill("SIGKILL"), graceMs);
      await exited;
      clearTimeout(kill);
    },
  };
}

/** A port that is free now, on loopback. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== "object" || address === null) throw new Error("no free port");
  return address.port;
}

/** Waits until `probe` succeeds, the child dies, or time is up. */
export async function untilReady(name: string, child: Child | null, probe: () => Promise<unknown>, timeoutMs = 60_000): Promise<void> {
  const until = performance.now() + timeoutMs;
  let dead: number | null | undefined;
  child?.exited.then((code) => {
    dead = code ?? -1;
  });
  let last: unknown;
  while (performance.now() < until) {
    if (dead !== undefined) throw new Error(`${name} ended with code ${dead} before it was ready`, { cause: last });
    try {
      await probe();
      return;
    } catch (error) {
      last = error;
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  }
  throw new Error(`${name} was not ready after ${Math.round(timeoutMs / 1000)} s`, { cause: last });
}

/** A probe over HTTP: anything but 200 is not ready. */
export async function expectOk(url: string): Promise<void> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(2_000) });
  await answer.arrayBuffer();
  if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`);
}
