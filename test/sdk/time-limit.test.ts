import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { ROOT } from "../../scripts/functions.ts";
import { openTimeLimit, timeLimit } from "../../shared/sdk/src/time-limit.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

it("a time limit comes though garbage was collected and nobody but AbortSignal.any knows it", async () => {
  let fired = 0;
  for (let i = 0; i < 20; i++) AbortSignal.any([new AbortController().signal, timeLimit(300)]).addEventListener("abort", () => fired++);
  for (let i = 0; i < 4; i++) {
    collectGarbage();
    await delay(30);
  }
  await delay(400);
  expect(fired).toBe(20);
});

it("a time limit that is let go of never comes", async () => {
  const [kept, closed] = [openTimeLimit(50), openTimeLimit(50)];
  const both = AbortSignal.any([closed.signal, new AbortController().signal]);
  closed.close();
  await new Promise((resolve) => kept.signal.addEventListener("abort", resolve));
  await delay(20);
  expect([kept.signal.reason.name, closed.signal.aborted, both.aborted]).toEqual(["TimeoutError", false, false]);
});

it("no other time-outs are made in what runs", async () => {
  const found: string[] = [];
  for (const folder of ["shared", "functions"]) {
    const files = (await readdir(join(ROOT, folder), { recursive: true })).filter((file) => file.endsWith(".ts") && !file.includes("node_modules"));
    for (const file of files) if ((await readFile(join(ROOT, folder, file), "utf8")).includes("AbortSignal.timeout(")) found.push(join(folder, file));
  }
  expect(found).toEqual([join("shared", "sdk", "src", "time-limit.ts")]);
});
