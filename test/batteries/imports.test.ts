import { spawn } from "node:child_process";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { FUNCTION_FILES } from "./declared.ts";

/** Imports functions one after the other as the only thing a process does, and tells what each touched. */
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
const handles = () => process.getActiveResourcesInfo().filter((name) => name !== "Immediate").sort();
const touched = {};
for (const file of process.argv.slice(1)) {
  const before = handles();
  await import(file);
  await new Promise((resolve) => setImmediate(resolve));
  const left = handles();
  for (const name of before) { const at = left.indexOf(name); if (at >= 0) left.splice(at, 1); }
  touched[file] = { read: read.splice(0), left };
}
process.stdout.write(JSON.stringify(touched), () => process.exit(0));
`;

async function importAll(urls: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", PROBE, ...urls], {
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
  const late = setTimeout(() => child.kill("SIGKILL"), 50_000);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  clearTimeout(late);
  return { code, out, err };
}

describe("importing a function", () => {
  let touched: Record<string, unknown> = {};
  beforeAll(async () => {
    const { code, out, err } = await importAll(FUNCTION_FILES.map(({ file }) => pathToFileURL(file).href));
    expect(code, err).toBe(0);
    touched = JSON.parse(out);
  });

  it.each(FUNCTION_FILES.map(({ name, file }) => [name, file]))("%s opens nothing and reads no environment", (_, file) => {
    expect(touched[pathToFileURL(file).href]).toEqual({ read: [], left: [] });
  });
});
