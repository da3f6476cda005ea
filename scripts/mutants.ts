/**
 * Takes safeguards out, one at a time, and says whether a test sees it: `npm run mutants -- [--only quota,grace-cap]`. Each is cut out of a copy of the tree;
 * its test must be green before, and red after by an assertion of its own. Ends with 1 when one survives. Stryker mutates every expression there is, and none
 * in SQL or Lua, where most of these stand; these few are chosen.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MUTANTS } from "../test/mutants/mutants.ts";
import { copyTree, type Verdict } from "../test/mutants/run.ts";
import { asCommand, Misuse } from "./command.ts";

const USAGE = `npm run mutants -- [--only <names>]

There are ${MUTANTS.map(({ name }) => name).join(", ")}.`;

await asCommand(USAGE, async (args) => {
  const { values } = parseArgs({ args, options: { only: { type: "string" } } });
  const only = values.only?.split(",");
  const unknown = only?.filter((name) => !MUTANTS.some((mutant) => mutant.name === name)) ?? [];
  if (unknown.length > 0) throw new Misuse(`There is no ${unknown.join(", ")}.`);

  const chosen = MUTANTS.filter(({ name }) => !only || only.includes(name));
  const startedAt = performance.now();
  const tree = await copyTree(join(import.meta.dirname, ".."));
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => void tree.remove().then(() => process.exit(130)));
  const before = new Map<string, Verdict>();
  let killed = 0;
  try {
    for (const mutant of chosen) {
      const id = `${mutant.test.file} ${mutant.test.name}`;
      const baseline = before.get(id) ?? (await tree.runTest(mutant.test));
      before.set(id, baseline);
      const verdict = baseline.colour === "green" ? await tree.without(mutant) : null;
      if (verdict?.colour === "red") killed++;
      const outcome =
        verdict === null ? `${baseline.colour.toUpperCase()} WITHOUT THE MUTANT` : verdict.colour === "green" ? "SURVIVED" : verdict.colour === "red" ? "red" : "BROKEN";
      console.log(
        `${mutant.name.padEnd(19)} ${outcome.padEnd(9)} ${(verdict ?? baseline).seconds.toFixed(1).padStart(5)} s  ${mutant.file} | ${mutant.test.file} › ${mutant.test.name}`,
      );
      if (verdict?.colour !== "red") console.log(`  ${mutant.what}. ${(verdict ?? baseline).why}`);
    }
  } finally {
    await tree.remove();
  }
  console.log(`${killed} of ${chosen.length} mutants were seen, in ${Math.round((performance.now() - startedAt) / 1000)} s.`);
  process.exit(killed === chosen.length ? 0 : 1);
});
