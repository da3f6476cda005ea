/** A plugin's process that is started again whenever it ends, at the same address, as a cluster does. */
import { setTimeout as wait } from "node:timers/promises";
import { type Child, expectOk, freePort, startChild, untilReady } from "../../scripts/local/child.ts";

export interface Pod {
  url: string;
  /** Sends SIGTERM, and resolves when the process says that it takes nothing new. */
  askToStop(): Promise<void>;
  /** Waits for the end of the process that runs now, or brings it about; resolves when another one is ready in its place. */
  replace(signal?: "SIGKILL"): Promise<void>;
  /** Processes that were started. */
  starts(): number;
  stop(): Promise<void>;
}

export interface PodOptions {
  program: string;
  args?: readonly string[];
  env: Record<string, string>;
  /** Starts a new process also when one ends by itself. */
  restarts?: boolean;
  /** JavaScript that Node runs as it is. */
  isPlain?: boolean;
}

/** A process that compiles what it runs is slow to start on a busy machine. */
const READY_MS = 90_000;

export async function startPod({ program, args = [], env, restarts = false, isPlain = false }: PodOptions): Promise<Pod> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let starts = 0;
  let isOver = false;
  let child: Child = spawn();

  function spawn(): Child {
    starts += 1;
    const started = startChild({
      name: "pod",
      command: process.execPath,
      args: [...(isPlain ? [] : ["--import", "tsx"]), ...args, program],
      env: { ...process.env, ...env, PORT: String(port) },
    });
    if (restarts)
      void started.exited.then(() => {
        if (!isOver && child === started) child = spawn();
      });
    return started;
  }
  const ready = () => untilReady("pod", child, () => expectOk(`${url}/health/liveness`), READY_MS);
  await ready();
  return {
    url,
    async askToStop() {
      child.process.kill("SIGTERM");
      while ((await fetch(`${url}/health/readiness`)).status !== 503) await wait(20);
    },
    async replace(signal) {
      const old = child;
      if (signal) old.process.kill(signal);
      await old.exited;
      if (!restarts) child = spawn();
      await ready();
    },
    starts: () => starts,
    async stop() {
      isOver = true;
      child.process.kill("SIGKILL");
      await child.exited;
    },
  };
}
