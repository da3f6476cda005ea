// `npm test`: the same set-up as `npm run up`, then the whole suite. Arguments go to vitest.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { installDependencies, run } from "./up.mjs";

installDependencies();
const root = dirname(dirname(fileURLToPath(import.meta.url)));
run([join(root, "node_modules", "vitest", "vitest.mjs"), "run", ...process.argv.slice(2)]);
