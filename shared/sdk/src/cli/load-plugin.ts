import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import * as v from "valibot";
import { Manifest } from "../manifest.ts";

const Module = v.object({ default: v.looseObject({ kind: v.literal("plugin"), manifest: Manifest }) });

/** The plugin that a file exports by default. Importing one starts nothing. */
export async function loadPlugin(file: string): Promise<{ manifest: Manifest }> {
  if (file === "" || !existsSync(file)) throw new Error(`There is no file ${file || "named"}; name the one that exports the plugin.`);
  const module: unknown = await import(pathToFileURL(resolve(file)).href);
  const read = v.safeParse(Module, module);
  if (!read.success) throw new Error(`${file} does not export a plugin by default: export default definePlugin({ … })`);
  return { manifest: read.output.default.manifest };
}
