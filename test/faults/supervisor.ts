/** Real processes that are really killed, and a supervisor that starts them again, as a cluster would. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expectOk } from "../../scripts/local/child.ts";

export interface ProcessSpec {
  name: string;
  args: readonly string[];
  env: Record<string, string>;
  port: number;
}

const CLOCK = fileURLToPath(new URL("./clock-shift.mjs", import.meta.url));
const READY_TIMEOUT_MS = 60_000;
const RESTART_AFTER_MS = 100;
const STOP_GRACE_MS = 15_000;

/** One process that is started again whenever it ends, without the failpoints that it was armed with. */
export class Supervised {
  readonly name: string;
  readonly port: number;
  readonly logFile: string;
  restarts = 0;
  /** Of a SIGSTOP: it takes no requests until it is continued. */
  isStopped = false;
  readonly #spec: ProcessSpec;
  readonly #clockFile: string;
  #child: ChildProcess | null = null;
  #isWanted = false;
  #isReady = false;

  constructor(spec: ProcessSpec, logFolder: string) {
    this.#spec = spec;
    this.name = spec.name;
    this.port = spec.port;
    this.logFile = join(logFolder, `${spec.name}.log`);
    this.#clockFile = join(logFolder, `${spec.name}.clock`);
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get isUp(): boolean {
    return this.#isReady && !this.isStopped;
  }

  /** Resolves when it answers. `failpoints`, and settings that go before its own, are for this start only. */
  async start(failpoints = "", env: Record<string, string> = {}): Promise<void> {
    this.#isWanted = true;
    this.#spawn(failpoints, env);
    await this.untilReady();
  }

  #spawn(failpoints: string, env: Record<string, string>): void {
    const log = openSync(this.logFile, "a", 0o600);
    const child = spawn(process.execPath, ["--import", CLOCK, ...this.#spec.args], {
      env: { PATH: process.env.PATH, ...this.#spec.env, ...env, AAU_CLOCK_FILE: this.#clockFile, PORT: String(this.port), ...(failpoints && { AAU_FP: failpoints }) },
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    this.#child = child;
    this.isStopped = false;
    const reap = () => child.kill("SIGKILL");
    process.once("exit", reap);
    child.once("exit", () => {
      process.off("exit", reap);
      if (this.#child !== child) return;
      this.#isReady = false;
      this.#child = null;
      if (!this.#isWanted) return;
      this.restarts += 1;
      setTimeout(() => {
        if (!this.#isWanted || this.#child) return;
        this.#spawn("", {});
        this.untilReady().catch((error: unknown) => console.error(`${this.name}: ${error instanceof Error ? error.message : error}`));
      }, RESTART_AFTER_MS);
    });
  }

  async untilReady(): Promise<void> {
    const until = performance.now() + READY_TIMEOUT_MS;
    while (performance.now() < until) {
      const child = this.#child;
      try {
        await expectOk(`http://127.0.0.1:${this.port}/health/readiness`);
        if (child && child === this.#child) {
          this.#isReady = true;
          return;
        }
      } catch {
        await delay(50);
      }
    }
    throw new Error(`not ready after ${READY_TIMEOUT_MS / 1000} s; see ${this.logFile}`);
  }

  /** Arms failpoints: a fresh process with them. The old one is killed, so nothing may be running that should not be. */
  async arm(failpoints: string, env?: Record<string, string>): Promise<void> {
    await this.stop("SIGKILL");
    await this.start(failpoints, env);
  }

  /** SIGKILL; the supervisor brings it back. */
  kill(): void {
    this.#isReady = false;
    this.#child?.kill("SIGKILL");
  }

  /** SIGTERM, as a cluster that moves a pod; the supervisor starts another when it has gone. */
  terminate(): void {
    this.#isReady = false;
    this.#child?.kill("SIGTERM");
  }

  /** From now on the process's wall clock is wrong by so much; its next lives' too. */
  setClock(shiftMs: number): void {
    writeFileSync(this.#clockFile, String(shiftMs));
    this.#child?.kill("SIGUSR2");
  }

  suspend(): void {
    this.isStopped = true;
    this.#child?.kill("SIGSTOP");
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
    this.isStopped = false;
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    this.#isWanted = false;
    this.#isReady = false;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    if (this.isStopped) child.kill("SIGCONT");
    child.kill(signal);
    const kill = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS);
    await exited;
    clearTimeout(kill);
    this.#child = null;
  }

  /** How often a failpoint has acted in this process, all its lives together. */
  hits(failpoint: string): number {
    return readFileSync(this.logFile, "utf8").split(`failpoint ${failpoint} `).length - 1;
  }
}
