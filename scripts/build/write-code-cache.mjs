/**
 * Evaluates a bundle, which by the rules of this house starts nothing, and keeps what V8 compiled on the way. Runs in a process of
 * its own with the Node that will run the bundle: `node write-code-cache.mjs <folder>`.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { constants, Script } from "node:vm";

const folder = process.argv[2];
if (folder === undefined) throw new Error("say which folder holds the bundle");
const filename = join(folder, "bundle.js");
const script = new Script(readFileSync(filename, "utf8"), { filename, importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER });
const bundle = { exports: {} };
script.runInThisContext()(bundle.exports, createRequire(filename), bundle, filename);
writeFileSync(join(folder, "bundle.cache"), script.createCachedData());
process.exit();
