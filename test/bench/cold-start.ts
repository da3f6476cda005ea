/** (d) From the start of the process to its first 200, for every bundle, beside a Node server that does nothing. */
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "../../scripts/build.ts";
import { findFunctions } from "../../scripts/functions.ts";
import { freePort } from "../../scripts/local/child.ts";
import { median, table, whole } from "./figures.ts";
import { peakKib } from "./node-process.ts";
import type { Part } from "./part.ts";

const STARTS = 5;
const PATIENCE_MS = 20_000;
const TARGET_MS = { api: 150, plugin: 250 };
const EMPTY = fileURLToPath(new URL("./floors/empty-server.mjs", import.meta.url));

function ask(port: number, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request({ host: "127.0.0.1", port, path, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    call.on("error", () => resolve(false));
    call.end();
  });
}

async function startOnce(entry: string, path: string, env: Record<string, string>): Promise<{ ms: number; kib: number }> {
  const port = await freePort();
  const startedAt = performance.now();
  const child = spawn(process.execPath, [entry], { env: { PATH: process.env.PATH, ...env, LOG_LEVEL: "warn", PORT: String(port) }, stdio: "ignore" });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  try {
    while (!(await ask(port, path))) {
      if (child.exitCode !== null || performance.now() - startedAt > PATIENCE_MS) throw new Error(`${entry} gave no 200`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return { ms: performance.now() - startedAt, kib: peakKib(child.pid ?? 0) };
  } finally {
    child.kill("SIGKILL");
    await exited;
  }
}

export const coldStart: Part = {
  letter: "d",
  title: `cold start to the first 200, ${STARTS} starts each in turn, as the image starts them`,

  async run(stage, print) {
    const outdir = join(stage.folder, "cold");
    const bundles = await build({ outdir });
    const kinds = new Map((await findFunctions()).map(({ name, kind }) => [name, kind]));
    const contenders = [
      { name: "empty node:http server", kind: "floor", entry: EMPTY, path: "/" },
      ...bundles.flatMap(({ name, entry }) => {
        const kind = kinds.get(name);
        return kind ? [{ name, kind, entry, path: "/health/readiness" }] : [];
      }),
    ];
    const times = new Map(contenders.map(({ name }) => [name, { ms: [] as number[], kib: [] as number[] }]));
    const lost: string[] = [];
    for (let i = 0; i < STARTS; i++) {
      for (const { name, entry, path } of contenders) {
        const { ms, kib } = await startOnce(entry, path, { ...stage.env, S3_ENDPOINT: "http://127.0.0.1:9", AWS_ACCESS_KEY_ID: "bench", AWS_SECRET_ACCESS_KEY: "bench" });
        times.get(name)?.ms.push(ms);
        times.get(name)?.kib.push(kib);
      }
    }
    const floor = median(times.get("empty node:http server")?.ms ?? []);
    const rows = contenders.map(({ name, kind }) => {
      const { ms = [], kib = [] } = times.get(name) ?? {};
      const target = kind === "plugin" ? TARGET_MS.plugin : TARGET_MS.api;
      const verdict = kind === "floor" ? "" : median(ms) < target ? `under ${target}` : `OVER ${target}`;
      return [
        name,
        kind,
        `${whole(median(ms))} ms`,
        `${whole(Math.min(...ms))}–${whole(Math.max(...ms))}`,
        `+${whole(median(ms) - floor)}`,
        verdict,
        `${whole(median(kib) / 1024)} MiB`,
      ];
    });
    print(table(["", "kind", "median", "range", "over empty", "target", "memory"], rows));
    rmSync(outdir, { recursive: true, force: true });
    return lost;
  },
};
