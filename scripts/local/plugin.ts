/** Serves one plugin from its source: `plugin.ts <file>`. */
import { pathToFileURL } from "node:url";
import * as v from "valibot";
import type { Plugin } from "../../shared/sdk/src/define-plugin.ts";
import { serve } from "../../shared/sdk/src/serve.ts";

const [file] = process.argv.slice(2);
if (!file) throw new Error("usage: plugin.ts <file>");
const isPlugin = (value: unknown): value is Plugin => v.is(v.object({ kind: v.literal("plugin") }), value);
const module: { default?: unknown } = await import(pathToFileURL(file).href);
if (!isPlugin(module.default)) throw new Error(`${file} does not export a plugin by default`);
await serve(module.default);
