import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findFunctions, loadFunctions } from "../../scripts/functions.ts";

const FIXTURES = fileURLToPath(new URL("fixtures", import.meta.url));

describe("the functions of a tree", () => {
  let root = "";
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "functions-"));
    for (const folder of ["api", "cron", "plugins/one", "plugins/two", "plugins/empty"]) await mkdir(join(root, "functions", folder), { recursive: true });
  });
  afterEach(() => rm(root, { recursive: true }));
  const put = (path: string, text: string) => writeFile(join(root, "functions", path), text);
  const cron = (name: string, more = "") =>
    `export default { kind: "cron", name: "${name}", summary: "x", needs: [], scale: { min: 0, max: 1, concurrency: 1 }, schedule: "* * * * * *", run() {}, ${more} };`;

  it("are found without importing them, sorted by name", async () => {
    await put("api/zebra.ts", "throw new Error('imported')");
    await put("cron/ant.ts", "throw new Error('imported')");
    await put("api/routes.generated.ts", "");
    await put("plugins/one/index.ts", "");
    await put("plugins/two/two.ts", "");
    expect((await findFunctions({ root })).map(({ name, kind }) => `${kind} ${name}`)).toEqual(["cron ant", "plugin one", "plugin two", "http zebra"]);
  });

  it("are loaded with their declarations", async () => {
    const loaded = await loadFunctions({
      root: FIXTURES,
      kinds: ["http", "event", "cron", "gateway"],
    });
    expect(loaded.map(({ fn }) => fn.name)).toContain("sample-run");
    expect(loaded.every(({ name, kind, fn }) => name === fn.name && kind === fn.kind)).toBe(true);
  });

  it("must be called as their file", async () => {
    await put("cron/ant.ts", cron("bee"));
    await expect(loadFunctions({ root })).rejects.toThrow(/ant\.ts declares the name bee/);
  });

  it("must stand in the folder of their kind", async () => {
    await put("api/ant.ts", cron("ant"));
    await expect(loadFunctions({ root })).rejects.toThrow(/belongs into functions\/cron/);
  });

  it("must not be called alike", async () => {
    await put("api/ant.ts", "");
    await put("cron/ant.ts", cron("ant"));
    await expect(loadFunctions({ root })).rejects.toThrow(/Two functions are called ant/);
  });

  it("are refused with the field that is wrong", async () => {
    await put("cron/ant.ts", cron("ant", "timeoutSec: 20"));
    await expect(loadFunctions({ root })).rejects.toThrow(/timeoutSec: must be at least 45/);
  });
});
