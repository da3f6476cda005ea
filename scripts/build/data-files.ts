/** Takes files that code finds with `new URL("./x.bin", import.meta.url)` along: copied beside the bundle, under their own name. */
import { createHash } from "node:crypto";
import { cp, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Loader, Plugin } from "esbuild";

const REFERENCE = /new URL\(\s*(["'])(\.{1,2}\/[^"']*[^"'/.])\1\s*,\s*import\.meta\.url\s*\)/g;

/** `outdir` is where the bundle lies. Only our own sources are read; packages bring their data in other ways. */
export function dataFiles(outdir: string): Plugin {
  const taken = new Map<string, string>();
  return {
    name: "data-files",
    setup({ onLoad }) {
      onLoad({ filter: /\.(ts|mts|js|mjs)$/ }, async ({ path }) => {
        if (path.includes("/node_modules/")) return null;
        const source = await readFile(path, "utf8");
        let contents = source;
        for (const [text, , reference = ""] of source.matchAll(REFERENCE)) {
          const from = resolve(dirname(path), reference);
          if (!(await stat(from).catch(() => null))) throw new Error(`${path} reads ${reference}, which is not there`);
          const name = await nameFor(from, taken);
          await cp(from, join(outdir, name), { recursive: true });
          contents = contents.replace(text, `new URL("./${name}", import.meta.url)`);
        }
        if (contents === source) return null;
        const loader: Loader = /ts$/.test(path) ? "ts" : "js";
        return { contents, loader };
      });
    },
  };
}

/** Two files of one name must not overwrite each other. */
async function nameFor(from: string, taken: Map<string, string>): Promise<string> {
  const plain = basename(from);
  const owner = taken.get(plain);
  if (owner !== undefined && owner !== from) return `${createHash("sha256").update(from).digest("hex").slice(0, 8)}-${plain}`;
  taken.set(plain, from);
  return plain;
}
