import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const plugin = join(root, "functions/plugins/code-review");

// The harness goes into the bundle too, so that the process needs nothing from node_modules.
const entry = `
import { readFileSync } from "node:fs";
import { PluginHarness } from "@aau/sdk/testing";
import plugin from ${JSON.stringify(join(plugin, "code-review.ts"))};
const harness = new PluginHarness(plugin);
const output = await harness.run({ task: "Review", attachments: [{ name: "change.diff", media_type: "text/x-diff", content: readFileSync(process.argv[2], "utf8") }], pluginConfig: { coding_standards: { forbidden_patterns: [{ pattern: "sessionSeed", message: "x" }] } } });
console.log(JSON.stringify({ summary: output.data?.summary, error: output.error, warnings: output.warnings }));
await harness.close();
`;

it("a bundle without node_modules lints, parses TypeScript and finds secrets as the sources do, and loads them only when needed", { timeout: 60_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "aau-bundle-"));
  try {
    const { metafile } = await build({
      stdin: { contents: entry, resolveDir: root, loader: "ts" },
      outdir: folder,
      bundle: true,
      minify: true,
      splitting: true,
      metafile: true,
      platform: "node",
      target: "node20",
      format: "esm",
      outExtension: { ".js": ".mjs" },
      banner: { js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);" },
      logLevel: "error",
    });
    await writeFile(join(folder, "change.diff"), await readFile(join(plugin, "examples/change.diff")));
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, "stdin.mjs"), join(folder, "change.diff")], { cwd: folder, timeout: 45_000 });
    expect(JSON.parse(stdout)).toEqual({ summary: { critical: 2, high: 7, medium: 7, low: 2 }, error: null, warnings: [] });

    // What the first file pulls in by static imports is what a cold start pays for.
    const outputs = Object.entries(metafile.outputs);
    const statically = (path: string, seen = new Set<string>()): Set<string> => {
      if (seen.has(path)) return seen;
      seen.add(path);
      for (const imported of metafile.outputs[path]?.imports ?? []) if (imported.kind === "import-statement" && !imported.external) statically(imported.path, seen);
      return seen;
    };
    const first = outputs.find(([, output]) => output.entryPoint === "<stdin>")?.[0] ?? "";
    const inputs = [...statically(first)].flatMap((path) => Object.keys(metafile.outputs[path]?.inputs ?? {}));
    expect(inputs.length).toBeGreaterThan(50);
    expect(inputs.filter((path) => /node_modules\/(?:eslint|@babel|@secretlint|re2js|js-tokens)\//.test(path))).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
