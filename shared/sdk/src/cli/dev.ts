/**
 * Runs a plugin beside a local platform while it is being written: started again at every change, and registered anew when what it says of
 * itself has changed. The platform never takes another manifest for a version that it knows, so each goes in as a pre-release of its own, and
 * the one before is taken out.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import { Manifest } from "../manifest.ts";
import { manifestDigest } from "../publishing/simple-signing.ts";
import { timeLimit } from "../time-limit.ts";

export interface DevOptions {
  /** Holds the plugin's `main.ts`. */
  folder: string;
  port: number;
  registryUrl: string;
  serviceToken: string;
  signal: AbortSignal;
  say(line: string): void;
}

/** What a plugin has in a cluster, too. The shell may know the platform's keys, which are no business of a plugin. */
const GIVEN = ["PATH", "HOME", "LLM_GATEWAY_URL", "SCOPE_GATEWAY_URL", "CHAIN_GATEWAY_URL", "AAU_ALLOW_PRIVATE_EGRESS", "LOG_LEVEL"] as const;
const LOOK_EVERY_MS = 400;
const ANSWER_MS = 5_000;
/** The registry wakes the plugin and asks how it is. */
const REGISTER_MS = 90_000;

/** Until the signal. Rejects when the program cannot be started. */
export async function dev({ folder, port, registryUrl, serviceToken, signal, say }: DevOptions): Promise<void> {
  const endpoint = `http://127.0.0.1:${port}`;
  const registry = (method: string, path: string, body?: unknown) =>
    fetch(`${registryUrl.replace(/\/+$/, "")}/internal/registry${path}`, {
      method,
      headers: { authorization: `Bearer ${serviceToken}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: timeLimit(REGISTER_MS),
    });

  const own = Object.fromEntries(GIVEN.map((name) => [name, process.env[name]]));
  const child = spawn(process.execPath, ["--watch", "--import", "tsx", "main.ts"], { cwd: folder, env: { ...own, PORT: String(port) }, stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise<never>((_, fail) => {
    child.once("error", fail);
    child.once("exit", (code) => fail(new Error(`The plugin's program has ended (${code ?? "killed"}).`)));
  });
  ended.catch(() => {});
  let seen = "";
  let registered: { name: string; version: string } | null = null;
  const takeOut = async () => {
    if (registered) await registry("DELETE", `/${registered.name}/${registered.version}`).then((answer) => answer.body?.cancel());
    registered = null;
  };

  async function look(): Promise<void> {
    const manifest = await manifestOf(endpoint);
    if (manifest === null || manifestDigest(manifest) === seen) return;
    seen = manifestDigest(manifest);
    const version = `${manifest.version}${manifest.version.includes("-") ? "." : "-"}dev.${Date.now()}`;
    const answer = await registry("POST", "/register", { manifest: { ...manifest, version }, endpoint });
    const text = await answer.text();
    if (!answer.ok) return say(`The platform refused ${manifest.name} ${version} (${answer.status}): ${text}`);
    await takeOut();
    registered = { name: manifest.name, version };
    say(`${manifest.name} ${version} is registered at ${endpoint}: ${text}`);
  }

  try {
    while (!signal.aborted) {
      await Promise.race([ended, look().catch((error: unknown) => say(`The platform cannot be reached: ${error instanceof Error ? error.message : error}`))]);
      await Promise.race([ended, delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})]);
    }
  } finally {
    await takeOut().catch(() => say(`${registered?.name} could not be taken out of the registry.`));
    await stop(child);
  }
}

/** Null while the program starts, and while what is being written does not run. */
async function manifestOf(endpoint: string): Promise<Manifest | null> {
  try {
    const answer = await fetch(`${endpoint}/manifest`, { signal: timeLimit(ANSWER_MS) });
    return v.parse(Manifest, await answer.json());
  } catch {
    return null;
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), ANSWER_MS);
  await gone;
  clearTimeout(timer);
}
