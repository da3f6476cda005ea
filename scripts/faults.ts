/**
 * Breaks the platform on purpose, and says whether its promises hold: `npm run faults -- [--short] [--seed N] [--only x4,chaos]
 * [--break fence|unique|replay]`. Exit code 0 only when the auditor finds I1 to I8 to hold. The same seed gives the same work and
 * the same schedule of faults; which task a fault meets is up to the machine. `--break` takes one safety out of the database first, and
 * has to end with exit code 1: it shows that the auditor can see.
 */
import { parseArgs } from "node:util";
import { BREAKS, isBreak } from "../test/faults/breaks.ts";
import { runFaults } from "../test/faults/run.ts";

const { values } = parseArgs({ options: { short: { type: "boolean", default: false }, seed: { type: "string" }, only: { type: "string" }, break: { type: "string" } } });
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
if (!Number.isSafeInteger(seed)) throw new Error("--seed must be a whole number");
const broken = values.break ?? null;
if (broken !== null && !isBreak(broken)) throw new Error(`--break must be one of ${Object.keys(BREAKS).join(", ")}`);
// Children end with this process's `exit`; a signal alone would not bring it about.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
// One listener per child.
process.setMaxListeners(50);
const isGood = await runFaults({ seed, isShort: values.short, broken, only: values.only?.split(",") ?? [] }, (line) => console.log(line));
process.exit(isGood ? 0 : 1);
