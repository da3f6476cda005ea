/** Processes that are measured: each its own Node, its log in a file that it writes to directly, its memory read from the kernel. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../../scripts/local/child.ts";

export interface Started {
  name: string;
  url: string;
  pid: number;
  /** The most memory that it ever held, in KiB. */
  peakKib(): number;
  /** Processor time so far, in ms. */
  cpuMs(): number;
  stop(): Promise<void>;
}

export interface StartOptions {
  name: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  folder: string;
  /** Path that answers 200 once it is ready. */
  readiness: string;
}

const READY_MS = 30_000;
const STOP_MS = 15_000;

/** Peak resident memory of any process, in KiB; NaN where the kernel does not say. */
export function peakKib(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN);
  } catch {
    return Number.NaN;
  }
}

/** Processor time of any process, in ms; 0 where the kernel does not say. The kernel counts in hundredths of a second. */
export function cpuMs(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return 0;
  }
}

export async function startNode({ name, args, env, folder, readiness }: StartOptions): Promise<Started> {
  const port = await freePort();
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, "a");
  // AAU_BENCH_PROFILE=<folder> leaves a CPU profile of every process there; figures of such a run are not comparable.
  const profile = process.env.AAU_BENCH_PROFILE ? ["--cpu-prof", `--cpu-prof-dir=${process.env.AAU_BENCH_PROFILE}`, `--cpu-prof-name=${name}-${port}.cpuprofile`] : [];
  const child = spawn(process.execPath, [...profile, ...args], { env: { PATH: process.env.PATH, ...env, PORT: String(port) }, stdio: ["ignore", log, log] });
  closeSync(log);
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  const reap = () => child.kill("SIGKILL");
  process.once("exit", reap);
  exited.then(() => process.off("exit", reap));
  const url = `http://127.0.0.1:${port}`;
  const until = performance.now() + READY_MS;
  for (;;) {
    const answer = await fetch(`${url}${readiness}`, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
    await answer?.arrayBuffer();
    if (answer?.status === 200) break;
    if (child.exitCode !== null || performance.now() > until) {
      reap();
      throw new Error(`${name} did not become ready: ${readFileSync(logFile, "utf8").slice(-2_000)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  const pid = child.pid ?? 0;
  let peak = 0;
  return {
    name,
    url,
    pid,
    cpuMs: () => cpuMs(pid),
    peakKib: () => (child.exitCode === null ? peakKib(pid) : peak),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      peak = peakKib(pid);
      child.kill("SIGTERM");
      const kill = setTimeout(reap, STOP_MS);
      await exited;
      clearTimeout(kill);
    },
  };
}
