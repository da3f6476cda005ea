import { spawn } from "node:child_process";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";

const POSTGRES = pathToFileURL(new URL("../support/postgres.ts", import.meta.url).pathname).href;

it("the test server leaves the exit code alone, so that a run with a failing test is red", async () => {
  const program = `const { startPostgres } = await import(${JSON.stringify(POSTGRES)}); const server = await startPostgres(); await server.stop(); process.exitCode = 3;`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], { stdio: ["ignore", "ignore", "pipe"] });
  let err = "";
  child.stderr.on("data", (data) => {
    err += data;
  });
  const late = setTimeout(() => child.kill("SIGKILL"), 50_000);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  clearTimeout(late);
  expect(code, err).toBe(3);
});
