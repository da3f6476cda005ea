import { spawn } from "node:child_process";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { FUNCTION_FILES } from "./declared.ts";

/** Imports one function as the only thing a process does, and tells what it touched. */
const PROBE = `
const read = [];
const ours = /\\/(functions|shared)\\//;
process.env = new Proxy({}, {
  get(target, name) {
    const line = (new Error().stack ?? "").split("\\n").slice(2).find((text) => !text.includes("node:"));
    if (typeof name === "string" && line && ours.test(line) && !line.includes("node_modules")) read.push(name);
    return Reflect.get(target, name);
  },
});
const before = process.getActiveResourcesInfo().sort();
await import(process.argv[1]);
await new Promise((resolve) => setImmediate(resolve));
const left = process.getActiveResourcesInfo().sort();
for (const name of before) { const at = left.indexOf(name); if (at >= 0) left.splice(at, 1); }
console.log(JSON.stringify({ read, left: left.filter((name) => name !== "Immediate") }));
`;

async function importAlone(file: string): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", PROBE, pathToFileURL(file).href], {
    env: { PATH: process.env.PATH },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (data) => {
    out += data;
  });
  child.stderr.on("data", (data) => {
    err += data;
  });
  // Whoever leaves a handle open does not end by himself.
  const late = setTimeout(() => child.kill("SIGKILL"), 30_000);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  clearTimeout(late);
  return { code, out, err };
}

describe("importing a function", () => {
  it.each(FUNCTION_FILES.map(({ name, file }) => [name, file]))("%s opens nothing and reads no environment", async (_, file) => {
    const { code, out, err } = await importAlone(file);
    expect(code, err).toBe(0);
    expect(JSON.parse(out)).toEqual({ read: [], left: [] });
  });
});
