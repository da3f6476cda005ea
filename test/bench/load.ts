/** The bench's side of its client process. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { type LoadJob, LoadReport } from "./load-job.ts";

const Message = v.union([v.object({ report: LoadReport }), v.object({ error: v.string() })]);

export interface Load {
  run(job: LoadJob): Promise<LoadReport>;
  stop(): void;
}

export function startLoad(): Load {
  const child = fork(fileURLToPath(new URL("./load-client.ts", import.meta.url)), { execArgv: ["--import", "tsx"] });
  const reap = () => child.kill("SIGKILL");
  process.once("exit", reap);
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        const onExit = () => reject(new Error("the client's process ended"));
        child.once("exit", onExit);
        child.once("message", (raw) => {
          child.off("exit", onExit);
          const message = v.parse(Message, raw);
          if ("report" in message) resolve(message.report);
          else reject(new Error(message.error));
        });
        child.send(job);
      }),
    stop() {
      process.off("exit", reap);
      reap();
    },
  };
}

export const badOf = ({ bad }: LoadReport): number => Object.values(bad).reduce((sum, count) => sum + count, 0);

/** Readable, for the line that says that something was lost. */
export const describeBad = ({ bad }: LoadReport): string =>
  Object.entries(bad)
    .map(([what, count]) => `${count} × ${what}`)
    .join(", ");
