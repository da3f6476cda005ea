/** The scripted provider's process. It is never faulted. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Sources } from "./records.ts";

export async function startProvider(sources: Sources, closers: (() => unknown)[]): Promise<string> {
  const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));
  const args = ["--import", "tsx", here("../support/scripted-provider.ts"), "--port", "0", "--ledger", sources.ledgerFile, "--script", here("provider-script.ts")];
  const child: ChildProcess = spawn(process.execPath, args, { env: { ...process.env, FAULTS_MARKERS: sources.markersFile }, stdio: ["ignore", "pipe", "inherit"] });
  const reap = () => child.kill("SIGKILL");
  process.once("exit", reap);
  closers.push(() => {
    process.off("exit", reap);
    reap();
  });
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the scripted provider ended with code ${code}`)));
    let said = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const url = /"url":"([^"]+)"/.exec(said)?.[1];
      if (url !== undefined) resolve(url);
    });
  });
}
