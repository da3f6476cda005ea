/** The `aau` command: makes, tests, signs and publishes plugins. Says what went wrong in one sentence. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { manifestDigest } from "../publishing/simple-signing.ts";
import { dev } from "./dev.ts";
import { loadPlugin } from "./load-plugin.ts";
import { newPlugin } from "./new-plugin.ts";
import { publish } from "./publish.ts";

const USAGE = `aau plugin new <name> [folder]      a plugin that runs, with its test
aau plugin test [folder]            runs the folder's tests
aau plugin dev [folder] [--port 9100]
                                    runs it beside a local platform, and again at every change (AAU_REGISTRY_URL, AAU_SERVICE_TOKEN,
                                    LLM_GATEWAY_URL, SCOPE_GATEWAY_URL, CHAIN_GATEWAY_URL: npm run up writes them to .aau/env)
aau plugin manifest <file>          the manifest, and its digest for cosign: -a aau.manifest=sha256:…
aau plugin publish <file> --image <host/repository@sha256:…> --endpoint <url> --key <pem> [--insecure]
                                    signs the image with your key, stores the signature beside it, registers both
                                    (AAU_REGISTRY_URL, AAU_SERVICE_TOKEN; AAU_KEY_PASSWORD for an encrypted key)`;

/** The process's exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const [subject, verb, ...rest] = args;
  if (args.some((arg) => arg === "--help" || arg === "-h")) {
    console.log(USAGE);
    return 0;
  }
  try {
    if (subject !== "plugin") throw new TypeError(USAGE);
    switch (verb) {
      case "new":
        return await runNew(rest);
      case "test":
        return await runTests(rest[0] ?? ".");
      case "dev":
        return await runDev(rest);
      case "manifest": {
        const { manifest } = await loadPlugin(rest[0] ?? "");
        console.log(`${JSON.stringify(manifest, null, 2)}\n${manifestDigest(manifest)}`);
        return 0;
      }
      case "publish":
        return await runPublish(rest);
      default:
        throw new TypeError(USAGE);
    }
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return 1;
  }
}

async function runNew([name = "", folder = name]: string[]): Promise<number> {
  for (const file of await newPlugin(name, resolve(folder))) console.log(file);
  return 0;
}

async function runTests(folder: string): Promise<number> {
  const files = (await readdir(resolve(folder), { recursive: true })).filter((file) => file.endsWith(".test.ts") && !file.includes("node_modules"));
  if (files.length === 0) throw new Error(`There are no tests (*.test.ts) in ${folder}.`);
  const child = spawn(process.execPath, ["--import", "tsx", "--test", ...files.map((file) => join(resolve(folder), file))], { cwd: resolve(folder), stdio: "inherit" });
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("close", (code) => done(code ?? 1));
  });
}

async function runDev(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({ args, options: { port: { type: "string", default: "9100" } }, allowPositionals: true });
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new TypeError("--port must be a port number.");
  const { AAU_REGISTRY_URL: registryUrl, AAU_SERVICE_TOKEN: serviceToken } = process.env;
  const folder = resolve(positionals[0] ?? ".");
  if (!existsSync(join(folder, "main.ts"))) throw new Error(`There is no main.ts in ${folder}.`);
  expectAll({ AAU_REGISTRY_URL: registryUrl, AAU_SERVICE_TOKEN: serviceToken });
  const over = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => over.abort());
  await dev({ folder, port, registryUrl: registryUrl ?? "", serviceToken: serviceToken ?? "", signal: over.signal, say: (line) => console.log(line) });
  return 0;
}

function expectAll(settings: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(settings)) if (!value) throw new TypeError(`${name} is missing.\n\n${USAGE}`);
}

async function runPublish(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    options: { image: { type: "string" }, endpoint: { type: "string" }, key: { type: "string" }, insecure: { type: "boolean" } },
    allowPositionals: true,
  });
  const { manifest } = await loadPlugin(positionals[0] ?? "");
  const { AAU_REGISTRY_URL: registryUrl, AAU_SERVICE_TOKEN: serviceToken, AAU_KEY_PASSWORD: password } = process.env;
  expectAll({ "--image": values.image, "--endpoint": values.endpoint, "--key": values.key, AAU_REGISTRY_URL: registryUrl, AAU_SERVICE_TOKEN: serviceToken });
  const told = await publish({
    manifest,
    image: values.image ?? "",
    endpoint: values.endpoint ?? "",
    keyFile: values.key ?? "",
    password,
    registryUrl: registryUrl ?? "",
    serviceToken: serviceToken ?? "",
    scheme: values.insecure ? "http" : "https",
  });
  console.log(told);
  return 0;
}
