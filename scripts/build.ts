/**
 * Makes what is deployed: one minified bundle per function in dist/functions/<name>, and the bridge, the migrations and the local
 * platform beside them. `npm run build -- [--failpoints] [--out <folder>] [name…]`.
 */
import { readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { Plugin } from "esbuild";
import * as v from "valibot";
import { type Bundle, bundle } from "./build/bundle.ts";
import { findTargets, type Target } from "./build/targets.ts";
import { asCommand } from "./command.ts";
import { ROOT } from "./functions.ts";

export type { Bundle } from "./build/bundle.ts";

export interface BuildOptions {
  /** Only these; all unless said. `bridge`, `migrate` and `platform` are names too. */
  functions?: readonly string[];
  /** `dist` in the repository unless said. */
  outdir?: string;
  /** Keeps the places where tests may stop a process. Never for production. */
  failpoints?: boolean;
  /** V8's code cache beside each function, made by this Node; true unless said. */
  codeCache?: boolean;
  /** The folder that holds `functions/`; the repository unless said. */
  root?: string;
  /** The bridge, the migrations and the local platform too; true unless said. */
  others?: boolean;
  /** More of esbuild's plugins, for test builds. */
  plugins?: readonly Plugin[];
}

/** Builds, and says where each bundle starts. Throws with esbuild's own explanation. */
export async function build(options: BuildOptions = {}): Promise<Bundle[]> {
  const outdir = resolve(options.outdir ?? join(ROOT, "dist"));
  const targets = await findTargets(options.root ?? ROOT, options.others ?? true);
  const wanted = options.functions ? options.functions.map((name) => pick(targets, name)) : targets;
  // A function that was renamed must not live on in the image.
  if (!options.functions) await rm(join(outdir, "functions"), { recursive: true, force: true });
  return bundle(wanted, {
    outdir,
    failpoints: options.failpoints ?? false,
    codeCache: options.codeCache ?? true,
    developmentPackages: await developmentPackages(),
    plugins: options.plugins,
  });
}

function pick(targets: readonly Target[], name: string): Target {
  const target = targets.find((candidate) => candidate.name === name);
  if (!target) throw new Error(`There is no function ${name}. There are: ${targets.map((candidate) => candidate.name).join(", ")}.`);
  return target;
}

/** The embedded database and object store are for development; a container is told where the real ones are. */
async function developmentPackages(): Promise<string[]> {
  const text = await readFile(join(ROOT, "package.json"), "utf8");
  const { devDependencies } = v.parse(v.object({ devDependencies: v.optional(v.record(v.string(), v.string()), {}) }), JSON.parse(text));
  return Object.keys(devDependencies);
}

const kib = (bytes: number) => (bytes === 0 ? "–" : `${Math.round(bytes / 1024).toLocaleString("en")}`).padStart(9);

export function sizeTable(bundles: readonly Bundle[]): string {
  const width = Math.max(8, ...bundles.map(({ name }) => name.length));
  const rows = bundles.map(({ name, bytes, cacheBytes, inputs }) => `${name.padEnd(width)} ${kib(bytes)} ${kib(cacheBytes)} ${String(inputs.length).padStart(7)}`);
  return [`${"bundle".padEnd(width)} ${"KiB".padStart(9)} ${"cache".padStart(9)} ${"files".padStart(7)}`, ...rows].join("\n");
}

const USAGE = `npm run build -- [--out <folder>] [--failpoints] [<function> …]

Bundles these functions, or all of them with the bridge and the tools, into dist/ or the folder.`;

if (process.argv[1] === import.meta.filename) {
  await asCommand(USAGE, async (args) => {
    const { values, positionals } = parseArgs({ args, options: { failpoints: { type: "boolean" }, out: { type: "string" } }, allowPositionals: true });
    const startedAt = performance.now();
    const bundles = await build({ outdir: values.out, failpoints: values.failpoints, functions: positionals.length > 0 ? positionals : undefined });
    console.log(sizeTable(bundles));
    console.log(`${bundles.length} bundles in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    return 0;
  });
}
