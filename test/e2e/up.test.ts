/** `npm run up` as a new user meets it: embedded PostgreSQL, Redis and S3, real processes, the main job once. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../../scripts/local/child.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const UP = join(ROOT, "scripts", "up.mjs");
let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "aau-up-"));
});
afterAll(() => rm(home, { recursive: true, force: true }));

async function start(args: string[], env: Record<string, string> = {}) {
  const port = await freePort();
  const { ANTHROPIC_API_KEY: _, ANTHROPIC_BASE_URL: __, OPENAI_API_KEY: ___, DATABASE_URL: ____, REDIS_URL: _____, S3_ENDPOINT: ______, ...clean } = process.env;
  const child = spawn(process.execPath, [UP, ...args], { env: { ...clean, AAU_HOME: home, AAU_PORT: String(port), ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let wake = () => {};
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      output += String(chunk);
      wake();
    });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  return {
    child,
    port,
    exited,
    output: () => output,
    async says(text: string) {
      let over = false;
      void exited.then(() => {
        over = true;
        wake();
      });
      while (!output.includes(text)) {
        if (over) throw new Error(`ended without saying ${text}:\n${output}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

/** Processes of this machine that mention the home folder, by their command lines or their environment's ports. */
async function left(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
    if (Number(pid) !== process.pid && (line.includes(home) || environment.includes(home))) found.push(line.replaceAll("\0", " "));
  }
  return found;
}

describe("npm run up", () => {
  it("--once does the main job and ends with 0, leaving keys for its user alone and no process", async () => {
    const up = await start(["--once"]);
    expect(await up.exited, up.output()).toBe(0);
    expect(up.output()).toContain("code-review");
    expect(up.output()).toMatch(/✓ security/);
    expect(up.output()).toContain("ANTHROPIC_API_KEY");
    expect(up.output()).toContain("→ code-review → ticket-processor");
    expect(up.output()).toMatch(/✓ \S+ security[\s\S]*✓ \S+ file_tickets/);
    expect(up.output()).toContain("## Tickets: 16 created");
    expect((await stat(join(home, "keys.json"))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(join(home, "keys.json"), "utf8"))).toMatchObject({
      "test-tenant-1": {
        tenant_id: expect.stringMatching(/^ten_/),
        user_id: expect.stringMatching(/^usr_/),
        plan_tier: "professional",
        admin_key: expect.stringMatching(/^sk_live_[0-9a-f]{32}$/),
      },
      "test-tenant-2": { plan_tier: "starter" },
    });
    expect(await left()).toEqual([]);
  }, 180_000);

  it("keeps its data and keys, stays up until Ctrl-C, and then leaves nothing running", async () => {
    const before = await readFile(join(home, "keys.json"), "utf8");
    const up = await start([]);
    await up.says("Ctrl-C");
    expect(await readFile(join(home, "keys.json"), "utf8")).toBe(before);
    const key: string = JSON.parse(before)["test-tenant-1"].admin_key;
    const answer = await fetch(`http://127.0.0.1:${up.port}/v1/tasks`, { headers: { authorization: `Bearer ${key}` } });
    expect(((await answer.json()) as { tasks: unknown[] }).tasks).toHaveLength(4);
    expect(up.output()).toContain("## Tickets: 16 there already");
    expect((await fetch(`http://127.0.0.1:${up.port}/internal/registry/register`, { method: "POST" })).status).toBe(404);
    const shell = join(home, "env");
    expect((await stat(shell)).mode & 0o777).toBe(0o600);
    const { stdout } = await promisify(execFile)("sh", ["-c", `. '${shell}'; echo "$AAU_URL $AAU_KEY"; npx tsx scripts/plugin.ts show code-review`], { cwd: ROOT });
    expect(stdout).toContain(`http://127.0.0.1:${up.port} ${key}`);
    expect(stdout).toContain("code-review");
    up.child.kill("SIGINT");
    expect(await up.exited).toBe(0);
    expect(await left()).toEqual([]);
    await expect(stat(shell)).rejects.toThrow("ENOENT");
  }, 180_000);

  it("says in one sentence what is in its way when the port is taken", async () => {
    const { createServer } = await import("node:net");
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const up = await start(["--once"], { AAU_PORT: String(typeof address === "object" ? address?.port : 0) });
    expect(await up.exited).toBe(1);
    expect(up.output()).toContain("is taken");
    server.close();
    expect(await left()).toEqual([]);
  }, 180_000);

  it("--isolated runs every function as its own process from its own bundle", async () => {
    const up = await start(["--once", "--isolated"]);
    expect(await up.exited, up.output()).toBe(0);
    expect(up.output()).toMatch(/functions +\d+ processes/);
    expect(await left()).toEqual([]);
  }, 300_000);
});
