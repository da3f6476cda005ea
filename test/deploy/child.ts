/** Runs a bundle as a service of its own, the way a container does. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as wait } from "node:timers/promises";

const START_MS = 10_000;

export interface Child {
  url: string;
  process: ChildProcess;
  /** Ends it with SIGTERM; gives the exit code. */
  stop(): Promise<number | null>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return address.port;
}

/** Starts it with this environment and no other, and waits until it says that it is ready. */
export async function startChild(entry: string, env: Record<string, string>): Promise<Child> {
  const port = await freePort();
  const child = spawn(process.execPath, [entry], { env: { ...env, PORT: String(port) }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const exited = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  const deadline = AbortSignal.timeout(START_MS);
  while (!(await isReady(url))) {
    if (child.exitCode !== null || deadline.aborted) {
      child.kill("SIGKILL");
      throw new Error(`${entry} did not become ready: ${said}`);
    }
    await wait(10);
  }
  return {
    url,
    process: child,
    async stop() {
      if (child.exitCode !== null) return child.exitCode;
      child.kill("SIGTERM");
      await Promise.race([exited, once(AbortSignal.timeout(START_MS), "abort").then(() => child.kill("SIGKILL"))]);
      return child.exitCode;
    },
  };
}

async function isReady(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/health/readiness`, { signal: AbortSignal.timeout(1000) })).ok;
  } catch {
    return false;
  }
}
