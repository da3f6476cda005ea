/** That each safeguard still reads as its mutant says; that its test goes red without it is what `npm run mutants` shows. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { MUTANTS, mutate } from "./mutants.ts";

const root = join(import.meta.dirname, "../..");

it.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))("%s takes something out of the newest text of it", async (_, mutant) => {
  const text = await readFile(join(root, mutant.file), "utf8");
  expect(mutate(mutant, text)).not.toBe(text);
  if (!mutant.file.startsWith("migrations/")) return;
  // A function that a later migration replaced would be mutated in vain.
  const name = [...text.slice(0, text.indexOf(mutant.from)).matchAll(/CREATE (?:OR REPLACE )?FUNCTION (\w+)\(/g)].at(-1)?.[1];
  const later = (await readdir(join(root, "migrations"))).filter((file) => `migrations/${file}` > mutant.file);
  for (const file of later) expect(await readFile(join(root, "migrations", file), "utf8"), file).not.toMatch(new RegExp(`CREATE (OR REPLACE )?FUNCTION ${name}\\(`));
});

it("each has a name of its own", () => {
  expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
});
