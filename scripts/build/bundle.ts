/** Bundles one target with esbuild. */
import { execFile } from "node:child_process";
import { copyFile, mkdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type BuildOptions, build as esbuild, type Metafile, type Plugin } from "esbuild";
import { ROOT } from "../functions.ts";
import { dataFiles } from "./data-files.ts";
import type { Target } from "./targets.ts";

export interface Bundle {
  name: string;
  /** Absolute path of the file that starts it: `node <entry>`. */
  entry: string;
  /** Of all code, minified. */
  bytes: number;
  /** Of V8's code cache; 0 without one. */
  cacheBytes: number;
  /** Source files, packages' included. */
  inputs: readonly string[];
}

export interface BundleOptions {
  outdir: string;
  failpoints: boolean;
  codeCache: boolean;
  /** Packages that are left out: found at run time, or never asked for. */
  external: readonly string[];
}

const CACHE_TIMEOUT_MS = 30_000;
const run = promisify(execFile);
const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** The bundle is an expression, a function of what CommonJS gives a module, so that one V8 script holds it and its cache. */
const WRAPPER = {
  banner: { js: `(function(exports,require,module,__filename){const bundleUrl=require("node:url").pathToFileURL(__filename).href;` },
  footer: { js: "})" },
  define: { "import.meta.url": "bundleUrl" },
};

const MODULE_BANNER = `import{createRequire as createRequireOfBundle}from"node:module";const require=createRequireOfBundle(import.meta.url);`;

/** Gives a bundle that looks for functions at run time the list from build time; each is loaded when it is asked for. */
function knownFunctions({ functions }: Target): Plugin {
  const list = functions?.map(({ name, kind, file }) => `{ name: "${name}", kind: "${kind}", file: "${name}", load: () => import(${JSON.stringify(file)}) }`);
  const contents = `
    const all = [${list}];
    const known = ({ kinds } = {}) => all.filter(({ kind }) => !kinds || kinds.includes(kind));
    export const ROOT = process.cwd();
    export const findFunctions = async (options) => known(options);
    export const loadFunction = async (found) => ({ ...found, fn: (await found.load()).default });
    export const loadFunctions = (options) => Promise.all(known(options).map(loadFunction));`;
  return {
    name: "known-functions",
    setup({ onLoad }) {
      if (functions) onLoad({ filter: /\/scripts\/functions\.ts$/ }, () => ({ contents, loader: "js", resolveDir: ROOT }));
    },
  };
}

export async function bundle(target: Target, { outdir, failpoints, codeCache, external }: BundleOptions): Promise<Bundle> {
  const folder = join(outdir, target.folder);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const options = {
    stdin: { contents: target.source, resolveDir: ROOT, sourcefile: `${target.name}.entry.ts`, loader: "ts" },
    absWorkingDir: ROOT,
    bundle: true,
    minify: true,
    platform: "node",
    target: "node20.19",
    sourcemap: "external",
    legalComments: "external",
    metafile: true,
    logLevel: "silent",
    external: ["pg-native", ...external],
    dropLabels: failpoints ? [] : ["FAILPOINT"],
    plugins: [knownFunctions(target), dataFiles(folder)],
    outdir: folder,
    entryNames: target.form === "cached" ? "bundle" : basename(target.entry, ".mjs"),
  } satisfies BuildOptions;
  const { metafile } = await (target.form === "cached"
    ? esbuild({ ...options, format: "cjs", ...WRAPPER })
    : esbuild({ ...options, format: "esm", splitting: true, outExtension: { ".js": ".mjs" }, banner: { js: MODULE_BANNER } }));

  const entry = join(folder, target.entry);
  if (target.form === "cached") await copyFile(here("launcher.mjs"), entry);
  const cacheBytes = target.form === "cached" && codeCache ? await writeCodeCache(target.name, folder) : 0;
  return { name: target.name, entry, bytes: codeBytes(metafile), cacheBytes, inputs: Object.keys(metafile.inputs) };
}

function codeBytes({ outputs }: Metafile): number {
  return Object.entries(outputs).reduce((sum, [path, { bytes }]) => (/\.m?js$/.test(path) ? sum + bytes : sum), 0);
}

/** Without the environment of this process: what reads it while it is imported breaks the rules, and is found here. */
async function writeCodeCache(name: string, folder: string): Promise<number> {
  try {
    await run(process.execPath, [here("write-code-cache.mjs"), folder], { env: {}, timeout: CACHE_TIMEOUT_MS });
  } catch (error) {
    throw new Error(`The bundle of ${name} cannot be evaluated`, { cause: error });
  }
  return (await stat(join(folder, "bundle.cache"))).size;
}
