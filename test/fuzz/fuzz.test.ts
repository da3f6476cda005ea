/** The short form of `npm run fuzz`, with requests that are the same in every run. */
import { expect, inject, it } from "vitest";
import { OPERATIONS } from "./requests.ts";
import { runFuzz } from "./run.ts";

it("1,500 requests, drawn from the document and damaged, break no rule of any answer and leave no half of anything behind", async () => {
  const { sent, answered, failures } = await runFuzz({ requests: 1_500, seed: 20_261_128, postgresUrl: inject("postgresUrl") });
  expect(failures.join("\n")).toBe("");
  expect(sent).toBe(1_500);
  // Most of them are refused; that some are not shows that the others were refused for what is wrong with them.
  expect(answered.size).toBeGreaterThan(OPERATIONS.length * 0.8);
});
