/**
 * Starts a function from its bundle and the V8 code cache beside it. A cache of another Node is refused by V8 and costs nothing
 * but the time that it would have saved. It is read-only at run time, so the container's root may be too.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { constants, Script } from "node:vm";

const filename = fileURLToPath(new URL("bundle.js", import.meta.url));
let cachedData;
try {
  cachedData = readFileSync(new URL("bundle.cache", import.meta.url));
} catch {
  // Built without a cache.
}
const script = new Script(readFileSync(filename, "utf8"), { filename, cachedData, importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER });
const bundle = { exports: {} };
script.runInThisContext()(bundle.exports, createRequire(filename), bundle, filename);
await bundle.exports.start();
