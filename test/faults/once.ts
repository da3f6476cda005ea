/** A process that is started once, and looked at when it has ended. */
import { type ChildProcess, spawn } from "node:child_process";

export interface Once {
  child: ChildProcess;
  /** `code` is null where a signal ended it. */
  ended: Promise<{ code: number | null; said: string }>;
}

const KILL_AFTER_MS = 60_000;

export function runOnce(bundle: string, env: Readonly<Record<string, string | undefined>>, killAfterMs = KILL_AFTER_MS): Once {
  const child = spawn(process.execPath, [bundle], { env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
  const reap = () => child.kill("SIGKILL");
  process.once("exit", reap);
  const timer = setTimeout(reap, killAfterMs);
  const ended = new Promise<{ code: number | null; said: string }>((resolve) =>
    child.once("close", (code) => {
      clearTimeout(timer);
      process.off("exit", reap);
      resolve({ code, said });
    }),
  );
  return { child, ended };
}
