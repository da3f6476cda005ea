/** Takes files that code finds with `new URL("./x.bin", import.meta.url)` along: copied beside each bundle that holds the code. */
import { createHash } from "node:crypto";
import { cp, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Plugin } from "esbuild";

const REFERENCE = /new URL\(\s*(["'])(\.{1,2}\/[^"']*[^"'/.])\1\s*,\s*import\.meta\.url\s*\)/g;

export interface DataFiles {
  plugin: Plugin;
  /** Copies what these sources refer to into a bundle's folder. */
  copyTo(folder: string, sources: readonly string[]): Promise<void>;
}

/** Only our own sources are read; packages bring their data in other ways. */
export function dataFiles(): DataFiles {
  /** By the source that refers to it: where the file is, and its name beside the bundle. */
  const references = new Map<string, { from: string; name: string }[]>();
  const plugin: Plugin = {
    name: "data-files",
    setup({ onLoad }) {
      onLoad({ filter: /\.(ts|mts|js|mjs)$/ }, async ({ path }) => {
        if (path.includes("/node_modules/")) return null;
        const source = await readFile(path, "utf8");
        const found: { from: string; name: string }[] = [];
        let contents = source;
        for (const [text, , reference = ""] of source.matchAll(REFERENCE)) {
          const from = resolve(dirname(path), reference);
          if (!(await stat(from).catch(() => null))) throw new Error(`${path} reads ${reference}, which is not there`);
          // Two folders may each have a file of this name.
          const name = `${createHash("sha256").update(from).digest("hex").slice(0, 6)}-${basename(from)}`;
          found.push({ from, name });
          contents = contents.replace(text, `new URL("./${name}", import.meta.url)`);
        }
        if (found.length === 0) return null;
        references.set(path, found);
        return { contents, loader: path.endsWith("ts") ? "ts" : "js" };
      });
    },
  };
  return {
    plugin,
    async copyTo(folder, sources) {
      for (const source of sources) {
        for (const { from, name } of references.get(source) ?? []) await cp(from, join(folder, name), { recursive: true });
      }
    },
  };
}
