import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const README = new URL("../../shared/sdk/README.md", import.meta.url);
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

let folder: string;
beforeEach(async () => {
  // Inside the repository, where @aau/sdk is found as a package.
  await mkdir(join(ROOT, ".aau"), { recursive: true });
  folder = await mkdtemp(join(ROOT, ".aau", "readme-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** The README's examples by the file name in their first line. */
async function examples(): Promise<Map<string, string>> {
  const blocks = (await readFile(README, "utf8")).matchAll(/```ts\n\/\/ (\S+)\n(.*?)```/gs);
  return new Map([...blocks].map(([, name = "", code = ""]) => [name, code]));
}

describe("the README", () => {
  it("shows a plugin of 40 lines, and its test, that run as they are printed", async () => {
    const files = await examples();
    expect([...files.keys()]).toEqual(["summarise.ts", "summarise.test.ts", "main.ts"]);
    expect(files.get("summarise.ts")?.trim().split("\n").length).toBeLessThanOrEqual(40);
    await writeFile(join(folder, "summarise.ts"), files.get("summarise.ts") ?? "");
    const test = `import assert from "node:assert/strict";\n${files.get("summarise.test.ts")}\nexport { harness, result };`;
    await writeFile(join(folder, "summarise.test.ts"), test);
    const { harness, result } = await import(/* @vite-ignore */ pathToFileURL(join(folder, "summarise.test.ts")).href);
    expect(result).toMatchObject({ result: "Two points matter.", artifacts: [{ name: "summary.md" }] });
    expect(harness.lastRun.modelCalls[0].call.body.messages[0].content).toContain("in a detailed style:\n\n# A long document");
  });
});
