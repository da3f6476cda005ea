/** That each safeguard still reads as its mutant says; that its test goes red without it is what `npm run mutants` shows. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { MUTANTS, mutate } from "./mutants.ts";

const root = join(import.meta.dirname, "../..");

it.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))("%s takes something out of the newest text of it", async (_, mutant) => {
  const text = await readFile(join(root, mutant.file), "utf8");
  expect(mutate(mutant, text)).not.toBe(text);
});

it("each has a name of its own", () => {
  expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
});
