// `npm run up` on a fresh clone: plain JavaScript without dependencies, since it is what installs them.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Node 20.19 or later is needed; this is ${process.versions.node}.`);
  process.exit(1);
}

/** npm writes a copy of the lock file into node_modules; when it is older than ours, something is missing. */
export function installDependencies() {
  const installed = join(root, "node_modules", ".package-lock.json");
  const isFresh = existsSync(installed) && existsSync(join(root, "node_modules", "tsx")) && sameLock(installed, join(root, "package-lock.json"));
  if (isFresh) return;
  console.log("Installing dependencies …");
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status } = spawnSync(npm, ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) process.exit(status ?? 1);
}

function sameLock(installedFile, lockFile) {
  const versions = (file) => JSON.parse(readFileSync(file, "utf8")).packages;
  const installed = versions(installedFile);
  return Object.entries(versions(lockFile)).every(
    ([path, wanted]) => path === "" || wanted.optional || wanted.link || wanted.devOptional || installed[path]?.version === wanted.version || !path.startsWith("node_modules/"),
  );
}

/** Runs a TypeScript entry with our arguments and settings, passes signals on, and ends as it ends. */
export function run(nodeArguments) {
  // The AWS SDK speaks up on Node 20, which it serves until 2027; that is no news for who only wants to see the platform run.
  const env = { ...process.env, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true" };
  const child = spawn(process.execPath, nodeArguments, { cwd: root, stdio: "inherit", env });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal === "SIGINT" ? "SIGINT" : "SIGTERM"));
  // npm that is told to end does so without a word to what it has started.
  const parent = process.ppid;
  if (process.env.npm_lifecycle_event) setInterval(() => process.ppid !== parent && child.kill("SIGTERM"), 1_000).unref();
  child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)));
}

if (process.argv[1] && fileURLToPath(import.meta.url) === process.argv[1]) {
  installDependencies();
  run(["--import", "tsx", join(root, "scripts", "local", "up.ts"), ...process.argv.slice(2)]);
}
