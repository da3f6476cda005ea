/** Bundles targets with esbuild. */
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type BuildOptions, build as esbuild, type Plugin } from "esbuild";
import { ROOT } from "../functions.ts";
import { dataFiles } from "./data-files.ts";
import { buildLaterModules, laterModules } from "./later-modules.ts";
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
  /** Left out of the local platform's bundle, where they are never asked for. */
  developmentPackages: readonly string[];
  /** More of esbuild's plugins, for test builds that change the code on purpose. */
  plugins?: readonly Plugin[];
}

const CACHE_TIMEOUT_MS = 30_000;
/** Processes that make code caches at a time. */
const LANES = 2;
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
function knownFunctions({ functions }: Target): Plugin[] {
  if (!functions) return [];
  const list = functions.map(({ name, kind, file }) => `{ name: "${name}", kind: "${kind}", file: "${name}", load: () => import(${JSON.stringify(file)}) }`);
  const contents = `
    const all = [${list}];
    const known = ({ kinds } = {}) => all.filter(({ kind }) => !kinds || kinds.includes(kind));
    export const ROOT = process.cwd();
    export const findFunctions = async (options) => known(options);
    export const loadFunction = async (found) => ({ ...found, fn: (await found.load()).default });
    export const loadFunctions = (options) => Promise.all(known(options).map(loadFunction));`;
  return [
    {
      name: "known-functions",
      setup({ onLoad }) {
        onLoad({ filter: /\/scripts\/functions\.ts$/ }, () => ({ contents, loader: "js", resolveDir: ROOT }));
      },
    },
  ];
}

/** The module that each target starts from exists only here; its imports are found from the repository's root. */
function entries(targets: readonly Target[]): Plugin {
  return {
    name: "entries",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^entry:/ }, ({ path }) => ({ path: path.slice("entry:".length), namespace: "entry" }));
      onLoad({ filter: /./, namespace: "entry" }, ({ path }) => ({
        contents: targets.find(({ name }) => name === path)?.source,
        loader: "ts",
        resolveDir: ROOT,
      }));
    },
  };
}

/**
 * LangChain draws sixteen random bytes for each of the UUIDs that it gives every step of a graph, and each draw costs more than the rest of the UUID: a
 * twentieth of a small graph's time. The same bytes come a few hundred UUIDs at a time.
 */
const POOLED_RANDOM_BYTES = `
  const pool = new Uint8Array(16 * 256);
  let next = pool.length;
  export default function rng() {
    if (next === pool.length) {
      crypto.getRandomValues(pool);
      next = 0;
    }
    next += 16;
    return pool.subarray(next - 16, next);
  }`;
const pooledRandomBytes: Plugin = {
  name: "pooled-random-bytes",
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]@langchain[\\/]core[\\/]dist[\\/]utils[\\/]uuid[\\/]rng\.js$/ }, () => ({ contents: POOLED_RANDOM_BYTES }));
  },
};

/** Bundles these at once, so that what they share is parsed once; all must be of one form. */
async function bundleTogether(
  targets: readonly Target[],
  { outdir, failpoints, developmentPackages, plugins = [] }: BundleOptions,
): Promise<Map<string, Pick<Bundle, "bytes" | "inputs">>> {
  const data = dataFiles();
  const isCached = targets[0]?.form === "cached";
  const shape: BuildOptions = isCached
    ? { format: "cjs", supported: { "dynamic-import": false }, ...WRAPPER }
    : { format: "esm", splitting: true, outExtension: { ".js": ".mjs" }, chunkNames: `${targets[0]?.folder}/[name]-[hash]`, banner: { js: MODULE_BANNER } };
  const { metafile } = await esbuild({
    ...shape,
    entryPoints: Object.fromEntries(targets.map((target) => [`${target.folder}/${isCached ? "bundle" : basename(target.entry, ".mjs")}`, `entry:${target.name}`])),
    outdir,
    absWorkingDir: ROOT,
    bundle: true,
    metafile: true,
    minify: true,
    platform: "node",
    target: "node20.19",
    sourcemap: "external",
    legalComments: "external",
    logLevel: "silent",
    external: ["pg-native", ...(targets.some(({ functions }) => functions) ? developmentPackages : [])],
    dropLabels: failpoints ? [] : ["FAILPOINT"],
    plugins: [...plugins, pooledRandomBytes, entries(targets), ...targets.flatMap(knownFunctions), ...(isCached ? [laterModules] : []), data.plugin],
  });
  const sizes = new Map<string, Pick<Bundle, "bytes" | "inputs">>();
  for (const target of targets) {
    const folder = join(outdir, target.folder);
    const outputs = Object.entries(metafile.outputs).filter(([path]) => /\.m?js$/.test(path) && dirname(resolve(ROOT, path)) === folder);
    const inputs = [...new Set(outputs.flatMap(([, output]) => Object.keys(output.inputs)))];
    await data.copyTo(
      folder,
      inputs.map((input) => resolve(ROOT, input)),
    );
    sizes.set(target.name, { bytes: outputs.reduce((sum, [, { bytes }]) => sum + bytes, 0), inputs });
  }
  return sizes;
}

/** Bundles them all. What is not a function gets a run of its own: its parts must not be shared with another's. */
export async function bundle(targets: readonly Target[], options: BundleOptions): Promise<Bundle[]> {
  for (const { folder } of targets) {
    await rm(join(options.outdir, folder), { recursive: true, force: true });
    await mkdir(join(options.outdir, folder), { recursive: true });
  }
  if (targets.some(({ form }) => form === "cached")) await buildLaterModules(options.outdir);
  const groups = [targets.filter(({ form }) => form === "cached"), ...targets.filter(({ form }) => form === "module").map((target) => [target])];
  const sizes = new Map<string, Pick<Bundle, "bytes" | "inputs">>();
  for (const group of groups.filter(({ length }) => length > 0)) for (const [name, size] of await bundleTogether(group, options)) sizes.set(name, size);
  return inLanes(targets, async (target) => finish(target, sizes.get(target.name) ?? { bytes: 0, inputs: [] }, options));
}

async function finish(target: Target, size: Pick<Bundle, "bytes" | "inputs">, { outdir, codeCache }: BundleOptions): Promise<Bundle> {
  const folder = join(outdir, target.folder);
  const entry = join(folder, target.entry);
  if (target.data) await cp(join(ROOT, target.data), join(folder, target.data), { recursive: true });
  if (target.form === "cached") await copyFile(here("launcher.mjs"), entry);
  const cacheBytes = target.form === "cached" && codeCache ? await writeCodeCache(target.name, folder) : 0;
  return { name: target.name, entry, ...size, cacheBytes };
}

/** In order, a few at a time. */
async function inLanes<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = [...items.entries()];
  const lane = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) results[next[0]] = await work(next[1]);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return results;
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
