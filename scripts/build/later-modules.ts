/**
 * Modules that a function loads only where a setting asks for them stand beside the bundles, once for all: within a bundle each of them would
 * be read at every cold start. They are required, not imported: in a script from V8's code cache `import()` finds no loader.
 */
import { basename, join } from "node:path";
import { build as esbuild, type Plugin } from "esbuild";
import { ROOT } from "../functions.ts";

const MODULES = ["shared/telemetry/otlp-spans.ts"] as const;
const FOLDER = "later";
const nameOf = (module: string) => `${basename(module, ".ts")}.cjs`;

/** Leaves them out of a function's bundle, which lies two folders deep. */
export const laterModules: Plugin = {
  name: "later-modules",
  setup({ onResolve }) {
    for (const module of MODULES) {
      onResolve({ filter: new RegExp(`/${basename(module).replace(".", "\\.")}$`) }, () => ({ path: `../../${FOLDER}/${nameOf(module)}`, external: true }));
    }
  },
};

export async function buildLaterModules(outdir: string): Promise<void> {
  await esbuild({
    entryPoints: MODULES.map((module) => ({ in: module, out: nameOf(module).replace(/\.cjs$/, "") })),
    outdir: join(outdir, FOLDER),
    absWorkingDir: ROOT,
    bundle: true,
    minify: true,
    platform: "node",
    target: "node20.19",
    format: "cjs",
    outExtension: { ".js": ".cjs" },
    sourcemap: "external",
    legalComments: "external",
    logLevel: "silent",
  });
}
