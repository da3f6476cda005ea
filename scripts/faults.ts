/**
 * Breaks the platform on purpose, and says whether its promises hold: `npm run faults -- [--short] [--seed N] [--only x4,chaos]
 * [--break NAME]`. Exit code 0 only when the auditor finds every invariant to hold. The same seed gives the same work and
 * the same schedule of faults; which task a fault meets is up to the machine. `--break` takes one safeguard out first, and has to end with
 * exit code 1: it shows that the auditor can see. `--break list` names them.
 */
import { parseArgs } from "node:util";
import { isBreak, listBreaks } from "../test/faults/breaks.ts";
import { runFaults } from "../test/faults/run.ts";
import { asCommand, Misuse, wholeNumber } from "./command.ts";

const USAGE = `npm run faults -- [options]

  --short           the form that runs in CI, about four minutes instead of half an hour
  --seed <number>   the same work and the same schedule of faults as then; drawn when it is not given
  --only <names>    points and scenarios whose name contains one of these: x4,chaos,F-30
  --break <name>    takes one safeguard out first, which has to turn an invariant red; "list" names them`;

await asCommand(USAGE, async (args) => {
  const { values } = parseArgs({
    args,
    options: { short: { type: "boolean", default: false }, seed: { type: "string" }, only: { type: "string" }, break: { type: "string" } },
  });
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber("seed", values.seed);
  const broken = values.break ?? null;
  if (broken === "list") {
    console.log(listBreaks());
    return 0;
  }
  if (broken !== null && !isBreak(broken)) throw new Misuse(`--break takes one of these out, and the invariant beside it has to turn red:\n${listBreaks()}`);
  // Children end with this process's `exit`; a signal alone would not bring it about.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
  // One listener per child.
  process.setMaxListeners(50);
  return (await runFaults({ seed, isShort: values.short, broken, only: values.only?.split(",") ?? [] }, (line) => console.log(line))) ? 0 : 1;
});
// Whatever a run that broke off has left open must not keep this process, and CI with it.
process.exit();
