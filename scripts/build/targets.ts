/** What is built: each function, and the few processes that are not functions. */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { allNeeds } from "../../shared/host/needs.ts";
import { type FunctionFile, findFunctions, loadFunctions, ROOT } from "../functions.ts";
import { openerFile } from "../opener-file.ts";

/**
 * `cached` starts through a launcher with V8's code cache, for what Knative starts while somebody waits. `module` is a plain ES
 * module that may load parts of itself later.
 */
export interface Target {
  name: string;
  /** Under the output folder. */
  folder: string;
  form: "cached" | "module";
  /** The file that starts it. */
  entry: string;
  /** Source of the module that is bundled; paths are relative to the repository. */
  source: string;
  /** Replaces the search through the tree, which a bundle no longer has. */
  functions?: readonly FunctionFile[];
  /** A folder of the repository that is copied beside the bundle. */
  data?: string;
}

const inRepository = (file: string) => {
  const path = relative(ROOT, file);
  return JSON.stringify(path.startsWith("..") ? path : `./${path}`);
};

function functionSource(file: string, fn: AnyFunction): string {
  const needs = allNeeds(fn);
  return [
    `import { serveFunction } from "./shared/host/serve.ts";`,
    `import fn from ${inRepository(file)};`,
    ...needs.map((need) => `import { opener as ${need} } from ${JSON.stringify(openerFile(need))};`),
    `export const start = () => serveFunction(fn, { ${needs.join(", ")} });`,
  ].join("\n");
}

function pluginSource(file: string): string {
  return [`import { serve } from "@aau/sdk/serve";`, `import plugin from ${inRepository(file)};`, `export const start = () => serve(plugin);`].join("\n");
}

const inFunctions = (name: string) => ({ name, folder: join("functions", name), form: "cached", entry: "index.mjs" }) as const;

/** Processes beside the functions; each exists once its source does. */
const OTHERS: readonly (Omit<Target, "source"> & { file: string })[] = [
  { name: "bridge", folder: "bridge", form: "module", entry: "index.mjs", file: "shared/host/bridge/main.ts" },
  { name: "migrate", folder: "migrate", form: "module", entry: "index.mjs", file: "scripts/migrate.ts", data: "migrations" },
  { name: "secrets-rotate", folder: "secrets-rotate", form: "module", entry: "index.mjs", file: "scripts/secrets-rotate.ts" },
  { name: "tenant", folder: "tenant", form: "module", entry: "index.mjs", file: "scripts/tenant.ts" },
  { name: "audit-verify", folder: "audit-verify", form: "module", entry: "index.mjs", file: "scripts/audit-verify.ts" },
  { name: "register", folder: "register", form: "module", entry: "index.mjs", file: "scripts/register.ts" },
  { name: "platform", folder: "local", form: "module", entry: "platform.mjs", file: "scripts/local/platform.ts" },
];

/** Everything that can be built from this tree. A plugin is not imported for it: its manifest does not matter to its bundle. */
export async function findTargets(root: string, withOthers: boolean): Promise<Target[]> {
  const loaded = await loadFunctions({ root, kinds: ["http", "event", "cron", "gateway"] });
  const plugins = await findFunctions({ root, kinds: ["plugin"] });
  const functions = [
    ...loaded.flatMap(({ name, file, fn }) => (fn.kind === "plugin" ? [] : [{ ...inFunctions(name), source: functionSource(file, fn) }])),
    ...plugins.map(({ name, file }) => ({ ...inFunctions(name), source: pluginSource(file) })),
  ].sort((a, b) => (a.name < b.name ? -1 : 1));
  // Plugins run in processes of their own, also where all else shares one.
  const all = loaded.map(({ name, kind, file }) => ({ name, kind, file }));
  const others = OTHERS.filter(({ file }) => withOthers && existsSync(join(ROOT, file))).map(({ file, ...target }) => ({
    ...target,
    source: `import ${JSON.stringify(`./${file}`)};`,
    ...(target.name === "platform" && { functions: all }),
  }));
  return [...functions, ...others];
}
