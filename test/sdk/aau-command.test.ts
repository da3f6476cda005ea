import { spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { freePort } from "../../scripts/local/child.ts";
import { trustPublisherKey } from "../../shared/registry/publisher-keys.ts";
import { type ImageStore, startImageStore } from "../support/image-store.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { startWellService, type WellService } from "../support/well-service.ts";

const COMMAND = fileURLToPath(new URL("../../shared/sdk/bin/aau.mjs", import.meta.url));
const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));

let folder: string;
let images: ImageStore;
let service: WellService;
let platform: TestPlatform;
/** Takes what nobody has signed. */
let local: TestPlatform;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-command-"));
  await symlink(MODULES, join(folder, "node_modules"));
  images = await startImageStore();
  service = await startWellService();
  local = await startTestPlatform({ env: { UNSIGNED_PLUGINS: "allow" }, withBridge: false });
  platform = await startTestPlatform({ env: { UNSIGNED_PLUGINS: "refuse", IMAGE_REGISTRIES: images.url }, withBridge: false });
}, 60_000);
afterAll(async () => {
  await platform?.stop();
  await local?.stop();
  await service?.stop();
  await images?.stop();
  await rm(folder, { recursive: true, force: true });
});

async function aau(args: string[], env: Record<string, string> = {}): Promise<{ code: number | null; out: string }> {
  const child = spawn(process.execPath, [COMMAND, "plugin", ...args], { cwd: folder, env: { PATH: process.env.PATH ?? "", HOME: folder, ...env } });
  let out = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (out += data));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, out };
}

describe("aau plugin", () => {
  it("says how it is used, and is wrong without a verb that it knows", async () => {
    expect(await aau(["publish", "--help"])).toMatchObject({ code: 0, out: expect.stringContaining("aau plugin publish <file>") });
    expect(await aau(["dance"])).toMatchObject({ code: 1, out: expect.stringContaining("aau plugin new <name>") });
  });

  it("new makes a plugin whose tests pass, and writes over nothing", async () => {
    const made = await aau(["new", "my-plugin"]);
    expect(made.code, made.out).toBe(0);
    expect(existsSync(join(folder, "my-plugin", "Dockerfile"))).toBe(true);
    const tested = await aau(["test", "my-plugin"]);
    expect(tested.code, tested.out).toBe(0);
    expect(tested.out).toMatch(/pass 3/);
    await writeFile(join(folder, "my-plugin", "main.ts"), "mine");
    const again = await aau(["new", "my-plugin"]);
    expect([again.code, again.out]).toEqual([1, expect.stringContaining("is not empty")]);
    expect(await readFile(join(folder, "my-plugin", "main.ts"), "utf8")).toBe("mine");
    expect((await aau(["new", "No Name"])).code).toBe(1);
  }, 240_000);

  it("test is red where a test is, and where there is none", async () => {
    await aau(["new", "red-plugin"]);
    await writeFile(join(folder, "red-plugin", "red.test.ts"), `import { it } from "node:test";\nit("fails", () => { throw new Error("red"); });\n`);
    expect((await aau(["test", "red-plugin"])).code).not.toBe(0);
    const none = await mkdtemp(join(tmpdir(), "aau-none-"));
    expect((await aau(["test", none])).code).toBe(1);
    await rm(none, { recursive: true });
  }, 240_000);

  it("publish signs with the developer's key, stores the signature beside the image, and the platform takes it; another's key it does not", async () => {
    await aau(["new", "published"], {});
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
    await writeFile(join(folder, "key.pem"), privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "long word" }));
    await writeFile(join(folder, "other.pem"), other.export({ type: "pkcs8", format: "pem" }));
    const digest = images.image("plugins/published", "an image");
    await trustPublisherKey(platform.db, { name: "dev", publicKey: publicKey.export({ type: "spki", format: "pem" }).toString(), ownerTenantId: null, expiresAt: null });

    const env = { AAU_REGISTRY_URL: platform.internalUrl, AAU_SERVICE_TOKEN: platform.serviceToken, AAU_KEY_PASSWORD: "long word" };
    const args = (key: string) => [
      "publish",
      "published/published.ts",
      "--image",
      `${images.host}/plugins/published@${digest}`,
      "--endpoint",
      service.url,
      "--key",
      key,
      "--insecure",
    ];
    const refused = await aau(args("other.pem"), env);
    expect([refused.code, refused.out]).toEqual([1, expect.stringContaining("untrusted_key")]);
    const done = await aau(args("key.pem"), env);
    expect(done.code, done.out).toBe(0);
    expect(done.out).toContain('"status":"active"');
    const wrong = await aau(args("key.pem"), { ...env, AAU_KEY_PASSWORD: "wrong" });
    expect(wrong.code).toBe(1);
    const tag = await aau(
      args("key.pem").map((arg) => (arg.includes("@sha256") ? `${images.host}/plugins/published:latest` : arg)),
      env,
    );
    expect([tag.code, tag.out]).toEqual([1, expect.stringContaining("sha256")]);
    const missing = await aau(args("key.pem"), {});
    expect([missing.code, missing.out]).toEqual([1, expect.stringContaining("AAU_REGISTRY_URL is missing")]);
  }, 240_000);

  it("dev runs a plugin that is being written: what was saved is what the platform has, and nothing when it ends", async () => {
    await aau(["new", "growing"]);
    const registry = { AAU_REGISTRY_URL: local.internalUrl, AAU_SERVICE_TOKEN: local.serviceToken };
    const gateways = { LLM_GATEWAY_URL: local.internalUrl, SCOPE_GATEWAY_URL: local.internalUrl, CHAIN_GATEWAY_URL: local.internalUrl };
    const tenant = await local.tenant();
    const shown = async () => (await tenant.api("GET", "/v1/plugins/growing")).body.description;
    const child = spawn(process.execPath, [COMMAND, "plugin", "dev", "growing", "--port", String(await freePort())], {
      cwd: folder,
      env: { PATH: process.env.PATH, HOME: folder, ...registry, ...gateways },
    });
    const ended = once(child, "close");
    try {
      await vi.waitFor(async () => expect(await shown()).toBe("Summarises a text that comes with the task."), { timeout: 60_000, interval: 300 });
      const file = join(folder, "growing", "growing.ts");
      await writeFile(file, (await readFile(file, "utf8")).replace("Summarises a text", "Now shortens a text"));
      await vi.waitFor(async () => expect(await shown()).toBe("Now shortens a text that comes with the task."), { timeout: 60_000, interval: 300 });
    } finally {
      child.kill("SIGINT");
    }
    expect((await ended)[0]).toBe(0);
    expect((await tenant.api("GET", "/v1/plugins/growing")).status).toBe(404);
    expect(await aau(["dev", "growing"])).toMatchObject({ code: 1, out: expect.stringContaining("AAU_REGISTRY_URL is missing") });
    expect(await aau(["dev", "."], registry)).toMatchObject({ code: 1, out: expect.stringContaining("There is no main.ts") });
  }, 240_000);
});
