/** Starts the platform's own processes: functions, plugins and the bridge, from their sources or, isolated, from their bundles. */
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ConfigError } from "../../shared/host/config.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { isPublic } from "../../shared/host/needs.ts";
import { findFunctions, loadFunctions, ROOT } from "../functions.ts";
import { expectOk, freePort, startChild, untilReady } from "./child.ts";
import type { Home } from "./home.ts";
import { localPublisher } from "./local-publisher.ts";
import type { Part } from "./parts.ts";
import { startProxyGateway } from "./public-gateway.ts";
import { registerPlugin } from "./register.ts";
import { startScheduler } from "./scheduler.ts";

export interface PlatformOptions {
  home: Home;
  env: Record<string, string | undefined>;
  port: number;
  isolated: boolean;
  onStart(part: Part): void;
}

export interface LocalPlatform {
  url: string;
  list: { name: string; about: string }[];
  plugins: string[];
  /** What a plugin, or who publishes one, has to know of it. */
  doors: Doors;
}

interface Doors {
  gateways: { LLM_GATEWAY_URL: string; SCOPE_GATEWAY_URL: string; CHAIN_GATEWAY_URL: string };
  registry: { AAU_REGISTRY_URL: string; FUNCTION_URLS: string };
}

export async function startPlatform(options: PlatformOptions): Promise<LocalPlatform> {
  await assertFree(options.port);
  return options.isolated ? startIsolated(options) : startTogether(options);
}

const entry = (path: string, ...args: string[]) => ["--import", "tsx", fileURLToPath(new URL(path, import.meta.url)), ...args];

/** All functions in one process; each plugin and the bridge in their own. */
async function startTogether({ home, env, port, onStart }: PlatformOptions): Promise<LocalPlatform> {
  const [internalPort, bridgePort] = [await freePort(), await freePort()];
  const internalUrl = `http://127.0.0.1:${internalPort}`;
  const loaded = await loadFunctions({ kinds: ["http", "event", "cron", "gateway"] });
  const functions = loaded.map((f) => f.fn).filter((fn): fn is AnyFunction => fn.kind !== "plugin");
  const doors = doorsOf(functions, () => internalUrl);
  const urls = functions.filter((fn) => fn.kind === "event").map((fn) => `${fn.name}=${internalUrl}/functions/${fn.name}`);
  // Plugins run from their sources here, and there is nothing that could be signed.
  const own = { ...env, FUNCTION_URLS: urls.join(","), UNSIGNED_PLUGINS: "allow" };

  const platform = startChild({
    name: "platform",
    command: process.execPath,
    args: entry("./platform.ts"),
    env: { ...own, PORT: String(port), INTERNAL_PORT: String(internalPort) },
    logFile: home.logFile("platform"),
  });
  onStart({ name: "platform", stop: () => platform.stop(30_000) });
  await untilReady("the platform", platform, () => expectOk(`${internalUrl}/health/readiness`));

  const plugins = await findFunctions({ kinds: ["plugin"] });
  await Promise.all(
    plugins.map(async ({ name, file }) => {
      const at = await freePort();
      const child = startChild({
        name,
        command: process.execPath,
        args: entry("./plugin.ts", file),
        env: {
          PATH: env.PATH,
          HOME: env.HOME,
          PORT: String(at),
          ...doors.gateways,
          AAU_ALLOW_PRIVATE_EGRESS: env.AAU_ALLOW_PRIVATE_EGRESS,
        },
        logFile: home.logFile(name),
      });
      onStart({ name, stop: () => child.stop() });
      await untilReady(name, child, () => expectOk(`http://127.0.0.1:${at}/health/readiness`));
      await registerPlugin({ registryUrl: internalUrl, serviceToken: env.SERVICE_TOKEN ?? "", endpoint: `http://127.0.0.1:${at}` });
    }),
  );

  await probePlugins(`${internalUrl}/functions/plugin-probe`);

  const bridge = startChild({
    name: "bridge",
    command: process.execPath,
    args: entry("../../shared/host/bridge/main.ts"),
    env: { ...own, PORT: String(bridgePort) },
    logFile: home.logFile("bridge"),
  });
  onStart({ name: "bridge", stop: () => bridge.stop(30_000) });
  await untilReady("the bridge", bridge, () => expectOk(`http://127.0.0.1:${bridgePort}/health/readiness`));

  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    plugins: plugins.map((plugin) => plugin.name),
    doors,
    list: [
      { name: "functions", about: `${functions.length} in one process` },
      { name: "plugins", about: plugins.map((plugin) => plugin.name).join(", ") },
      { name: "bridge", about: "Redis Streams → CloudEvents" },
      { name: "gateway", about: url },
    ],
  };
}

function doorsOf(functions: readonly AnyFunction[], urlOf: (name: string) => string): Doors {
  const registry = functions.filter((fn) => fn.kind === "http" && fn.scope === "service").map(({ name }) => `${name}=${urlOf(name)}`);
  return {
    gateways: { LLM_GATEWAY_URL: urlOf("llm-gateway"), SCOPE_GATEWAY_URL: urlOf("scope-gateway"), CHAIN_GATEWAY_URL: urlOf("chain-gateway") },
    registry: { AAU_REGISTRY_URL: urlOf("registry-register"), FUNCTION_URLS: registry.join(",") },
  };
}

/** All together would have a small machine switch between them until each was late. */
const STARTED_AT_ONCE = 6;

/** Every function from its own bundle in a process of its own, behind a gateway that routes as the HTTPRoutes do. */
async function startIsolated({ home, env, port, onStart }: PlatformOptions): Promise<LocalPlatform> {
  const { build } = await import("../build.ts");
  const outdir = home.path("dist");
  const bundles = await build({ outdir });
  const loaded = await loadFunctions({ kinds: ["http", "event", "cron", "gateway"] });
  const functions = loaded.map((f) => f.fn).filter((fn): fn is AnyFunction => fn.kind !== "plugin");
  const plugins = await findFunctions({ kinds: ["plugin"] });
  const ports = new Map<string, number>();
  for (const { name } of [...functions, ...plugins, { name: "bridge" }]) ports.set(name, await freePort());
  const urlOf = (name: string) => `http://127.0.0.1:${ports.get(name)}`;
  const own = { ...env, DATABASE_POOL: "3", FUNCTION_URLS: functions.map((fn) => `${fn.name}=${urlOf(fn.name)}`).join(",") };

  const doors = doorsOf(functions, urlOf);

  const publisher = await localPublisher(home, env.DATABASE_URL ?? "");
  const start = async (name: string, file: string, settings: Record<string, string | undefined>) => {
    const child = startChild({ name, command: process.execPath, args: [file], env: { ...settings, PORT: String(ports.get(name)) }, logFile: home.logFile(name), cwd: outdir });
    onStart({ name, stop: () => child.stop(30_000) });
    await untilReady(name, child, () => expectOk(`${urlOf(name)}/health/readiness`));
  };
  const waiting = functions.map(({ name }) => name);
  const startInTurn = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await start(name, join(outdir, "functions", name, "index.mjs"), own);
  };
  await Promise.all(Array.from({ length: STARTED_AT_ONCE }, startInTurn));
  await Promise.all(
    plugins.map(async ({ name }) => {
      await start(name, join(outdir, "functions", name, "index.mjs"), {
        PATH: env.PATH,
        HOME: env.HOME,
        ...doors.gateways,
        AAU_ALLOW_PRIVATE_EGRESS: env.AAU_ALLOW_PRIVATE_EGRESS,
      });
      const signed = publisher.signed(name, join(outdir, "functions", name, "index.mjs"));
      await registerPlugin({ registryUrl: urlOf("registry-register"), serviceToken: env.SERVICE_TOKEN ?? "", endpoint: urlOf(name), ...signed });
    }),
  );
  await probePlugins(urlOf("plugin-probe"));
  await start("bridge", join(outdir, "bridge", "index.mjs"), own);

  const gateway = await startProxyGateway(functions, urlOf, port);
  onStart({ name: "gateway", stop: () => gateway.close(5_000) });
  const scheduler = startScheduler(functions, urlOf);
  onStart({ name: "scheduler", stop: async () => scheduler.stop() });
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    plugins: plugins.map((plugin) => plugin.name),
    doors,
    list: [
      { name: "bundles", about: `${bundles.length} built in ${outdir.startsWith(ROOT) ? outdir.slice(ROOT.length) : outdir}` },
      { name: "functions", about: `${functions.length} processes, ${functions.filter(isPublic).length} behind the gateway` },
      { name: "plugins", about: plugins.map((plugin) => plugin.name).join(", ") },
      { name: "bridge", about: "Redis Streams → CloudEvents" },
      { name: "gateway", about: url },
    ],
  };
}

/** The schedule's first look is minutes away; the catalogue should know at once how the plugins are. */
async function probePlugins(url: string): Promise<void> {
  const answer = await fetch(url, { method: "POST", signal: AbortSignal.timeout(30_000) });
  await answer.arrayBuffer();
}

async function assertFree(port: number): Promise<void> {
  if (port === 0) throw new ConfigError("AAU_PORT must name a port; 0 does not.");
  await new Promise<void>((resolve, reject) => {
    const server = createServer();
    server.once("error", () => reject(new ConfigError(`Port ${port} is taken; stop what listens there, or set AAU_PORT.`)));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve()));
  });
}
