/** Runs one test in a copy of the tree, as it is and without a safeguard. The working tree is only read. */
import { execFile, spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { type Mutant, mutate } from "./mutants.ts";

/** `red`: an assertion of the test failed. `broken`: it failed in another way, or was not run; then nothing is said of the safeguard. */
export interface Verdict {
  colour: "green" | "red" | "broken";
  /** Why it is not green. */
  why: string;
  seconds: number;
}

const Results = v.object({
  testResults: v.array(
    v.object({
      message: v.optional(v.string(), ""),
      assertionResults: v.array(v.object({ fullName: v.string(), status: v.string(), failureMessages: v.optional(v.array(v.string()), []) })),
    }),
  ),
});
/** Of an assertion, also of one that was tried again until its time was over. */
const ASSERTION = /^(AssertionError|AssertionError \[ERR_ASSERTION\])\b/;
const TEST_MS = 180_000;

export interface ScratchTree {
  runTest(test: Mutant["test"]): Promise<Verdict>;
  /** With the safeguard taken out, and put back afterwards. */
  without(mutant: Mutant): Promise<Verdict>;
  remove(): Promise<void>;
}

export async function copyTree(root: string): Promise<ScratchTree> {
  const scratch = await mkdtemp(join(tmpdir(), "aau-mutants-"));
  const { stdout } = await promisify(execFile)("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root, maxBuffer: 64 * 1024 * 1024 });
  for (const file of stdout.split("\0").filter(Boolean)) {
    // What git knows and is not there is deleted, and not committed yet.
    await mkdir(join(scratch, dirname(file)), { recursive: true });
    await cp(join(root, file), join(scratch, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }
  await linkModules(root, scratch);
  const runTest = async (test: Mutant["test"]) => {
    const verdict = await run(scratch, test);
    // A port that somebody else took, say.
    return verdict.colour === "broken" ? run(scratch, test) : verdict;
  };
  return {
    runTest,
    async without(mutant) {
      const path = join(scratch, mutant.file);
      const text = await readFile(path, "utf8");
      await writeFile(path, mutate(mutant, text));
      try {
        return await runTest(mutant.test);
      } finally {
        await writeFile(path, text);
      }
    },
    remove: () => rm(scratch, { recursive: true, force: true }),
  };
}

/** Everything that is installed, but for the packages of this repository, which are the copy's own. */
async function linkModules(root: string, scratch: string): Promise<void> {
  const [from, to] = [join(root, "node_modules"), join(scratch, "node_modules")];
  await mkdir(join(to, "@aau"), { recursive: true });
  for (const name of await readdir(from)) if (name !== "@aau" && name !== ".vite" && name !== ".vitest") await symlink(join(from, name), join(to, name));
  await symlink(join(scratch, "shared/sdk"), join(to, "@aau/sdk"));
}

async function run(scratch: string, { file, name }: Mutant["test"]): Promise<Verdict> {
  const startedAt = performance.now();
  const output = join(scratch, ".verdict.json");
  await rm(output, { force: true });
  const pattern = `^${name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")}$`;
  const said = await vitest(scratch, ["run", file, "-t", pattern, "--reporter=json", `--outputFile=${output}`]);
  const seconds = (performance.now() - startedAt) / 1000;
  const verdict = (colour: Verdict["colour"], why = ""): Verdict => ({ colour, why, seconds });
  const text = await readFile(output, "utf8").catch(() => null);
  if (text === null) return verdict("broken", `vitest wrote no results: ${said.slice(-500)}`);
  const { testResults } = v.parse(Results, JSON.parse(text));
  const ran = testResults.flatMap(({ assertionResults }) => assertionResults).filter(({ status }) => status === "passed" || status === "failed");
  const [only] = ran;
  if (!only || ran.length > 1 || only.fullName !== name)
    return verdict("broken", `ran ${ran.length} tests, not this one: ${testResults.map(({ message }) => message).join(" ") || said.slice(-500)}`);
  if (only.status === "passed") return verdict("green");
  const why = only.failureMessages[0]?.split("\n")[0] ?? "";
  return verdict(ASSERTION.test(why) ? "red" : "broken", why);
}

/** What it printed; its exit code says no more than its results do. */
function vitest(scratch: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(scratch, "node_modules/vitest/vitest.mjs"), ...args], { cwd: scratch, stdio: ["ignore", "pipe", "pipe"], timeout: TEST_MS });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (said = `${said}${chunk}`.slice(-10_000)));
    child.on("close", () => resolve(said));
  });
}
