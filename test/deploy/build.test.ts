import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Bundle, build } from "../../scripts/build.ts";
import { startChild } from "./child.ts";

const FIXTURES = fileURLToPath(new URL("fixtures", import.meta.url));
const HEAVY = /node_modules\/(@langchain|langsmith|eslint|@typescript-eslint|@secretlint)\//;

let outdir = "";
let bundles = new Map<string, Bundle>();

beforeAll(async () => {
  outdir = await mkdtemp(join(tmpdir(), "bundles-"));
  const built = await build({ root: FIXTURES, outdir, functions: ["sample-echo", "sample-list", "sample-plugin"] });
  bundles = new Map(built.map((bundle) => [bundle.name, bundle]));
}, 60_000);
afterAll(() => rm(outdir, { recursive: true, force: true }));

function bundleOf(name: string): Bundle {
  const bundle = bundles.get(name);
  if (!bundle) throw new Error(`${name} was not built`);
  return bundle;
}

const codeOf = async (name: string) => readFile(join(dirname(bundleOf(name).entry), "bundle.js"), "utf8");

describe("a function's bundle", () => {
  it("answers on its own, with the file that it brings along, and ends on SIGTERM", async () => {
    const child = await startChild(bundleOf("sample-echo").entry, { LOG_LEVEL: "silent" });
    const reply = await fetch(`${child.url}/v1/echoes`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"text":"world"}',
      signal: AbortSignal.timeout(5000),
    });
    expect(await reply.json()).toEqual({ text: "Hello, world" });
    expect(await child.stop()).toBe(0);
  });

  it("says which setting it misses", () => {
    const { status, stdout } = spawnSync(process.execPath, [bundleOf("sample-list").entry], {
      env: { PORT: "0", REDIS_URL: "redis://127.0.0.1:9" },
      encoding: "utf8",
      timeout: 10_000,
    });
    expect(status).toBe(1);
    expect(stdout).toContain("DATABASE_URL is not set");
  });

  it("holds no agent library", () => {
    for (const name of ["sample-echo", "sample-list"]) expect(bundleOf(name).inputs.filter((input) => HEAVY.test(input))).toEqual([]);
    expect(bundleOf("sample-plugin").inputs.some((input) => HEAVY.test(input))).toBe(true);
  });

  it("sends its traces where a collector is set, and holds nothing of the exporter", async () => {
    let sent = "";
    const collector = createServer(async (request, response) => {
      for await (const chunk of request) sent += chunk;
      response.end("{}");
    });
    await once(collector.listen(0, "127.0.0.1"), "listening");
    const child = await startChild(bundleOf("sample-echo").entry, {
      LOG_LEVEL: "silent",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(collector.address() as AddressInfo).port}`,
    });
    await fetch(`${child.url}/v1/echoes`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"text":"world"}', signal: AbortSignal.timeout(5000) });
    expect(await child.stop()).toBe(0);
    expect(sent).toContain("POST /v1/echoes");
    expect(bundleOf("sample-echo").inputs.filter((input) => /@opentelemetry\/(exporter|sdk)/.test(input))).toEqual([]);
    collector.close();
  });

  it("holds only the drivers of what it needs", () => {
    const drivers = (name: string) => bundleOf(name).inputs.filter((input) => /node_modules\/(pg|ioredis|@aws-sdk)\//.test(input));
    expect(drivers("sample-echo")).toEqual([]);
    expect(drivers("sample-list").some((input) => input.includes("/pg/"))).toBe(true);
    expect(drivers("sample-list").some((input) => input.includes("@aws-sdk"))).toBe(false);
  });

  it("has a code cache that this Node accepts", () => {
    const check = `const { Script } = require("node:vm"), { readFileSync } = require("node:fs");
      const script = new Script(readFileSync("bundle.js", "utf8"), { cachedData: readFileSync("bundle.cache"), filename: "bundle.js" });
      process.stdout.write(String(script.cachedDataRejected));`;
    for (const { entry, cacheBytes } of bundles.values()) {
      expect(cacheBytes).toBeGreaterThan(0);
      expect(execFileSync(process.execPath, ["--eval", check], { cwd: dirname(entry), encoding: "utf8" })).toBe("false");
    }
  });

  it("starts without its code cache too", async () => {
    const folder = await mkdtemp(join(tmpdir(), "uncached-"));
    const [uncached] = await build({ root: FIXTURES, outdir: folder, functions: ["sample-echo"], codeCache: false });
    expect(existsSync(join(folder, "functions/sample-echo/bundle.cache"))).toBe(false);
    const child = await startChild(uncached?.entry ?? "", { LOG_LEVEL: "silent" });
    expect(await child.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  it("has neither the failpoints nor their names, unless they are asked for", async () => {
    expect(await codeOf("sample-echo")).not.toContain("sample.before_answer");
    const folder = await mkdtemp(join(tmpdir(), "failpoints-"));
    await build({ root: FIXTURES, outdir: folder, functions: ["sample-echo"], failpoints: true, codeCache: false });
    expect(await readFile(join(folder, "functions/sample-echo/bundle.js"), "utf8")).toContain("sample.before_answer");
    await rm(folder, { recursive: true });
  });
});

describe("a plugin's bundle", () => {
  it("serves its manifest, and knows nothing of the platform's database", async () => {
    const child = await startChild(bundleOf("sample-plugin").entry, { LLM_GATEWAY_URL: "http://127.0.0.1:9", SCOPE_GATEWAY_URL: "http://127.0.0.1:9" });
    const manifest = await fetch(`${child.url}/manifest`, { signal: AbortSignal.timeout(5000) });
    expect(await manifest.json()).toMatchObject({ name: "sample-plugin", version: "1.2.3" });
    expect(await child.stop()).toBe(0);
    expect(bundleOf("sample-plugin").inputs.filter((input) => /shared\/(db|redis|host)\//.test(input))).toEqual([]);
  });
});

describe("the build", () => {
  it("names the functions that there are when it does not know one", async () => {
    await expect(build({ root: FIXTURES, outdir, functions: ["sample-ehco"] })).rejects.toThrow(/no function sample-ehco\. There are: .*sample-echo/);
  });

  it("forgets functions that are gone", async () => {
    const root = await mkdtemp(join(tmpdir(), "tree-"));
    await mkdir(join(root, "dist/functions/gone"), { recursive: true });
    await build({ root, outdir: join(root, "dist"), codeCache: false, others: false });
    expect(existsSync(join(root, "dist/functions/gone"))).toBe(false);
    await rm(root, { recursive: true });
  });

  it("refuses a function whose import does something that fails", async () => {
    const root = await mkdtemp(join(tmpdir(), "tree-"));
    await mkdir(join(root, "functions/plugins/eager"), { recursive: true });
    await writeFile(join(root, "functions/plugins/eager/index.ts"), `if (!process.env.HOME) throw new Error("reads HOME"); export default {};`);
    await expect(build({ root, outdir: join(root, "dist"), functions: ["eager"] })).rejects.toThrow(/eager cannot be evaluated/);
    await rm(root, { recursive: true });
  });
});
