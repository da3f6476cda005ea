import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plugin } from "../../scripts/plugin.ts";
import { publicId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";

let platform: TestPlatform;
let folder: string;
const run = (...args: string[]) => plugin(args, { ...platform.env, FUNCTION_URL: `${platform.internalUrl}/functions/{name}` });
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, asker], withBridge: false });
  folder = await mkdtemp(join(tmpdir(), "aau-keys-"));
});
afterAll(async () => {
  await platform?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("npm run plugin", () => {
  it("shows, deprecates, restores and deregisters", async () => {
    expect(JSON.parse(await run("show", "echo"))).toMatchObject({ plugin: "echo", status: "active", versions: [{ version: "1.0.0", signed_by: null }] });
    expect(JSON.parse(await run("deprecate", "echo", "--guide", "https://docs.example.com"))).toMatchObject({
      status: "deprecated",
      migration_guide_url: "https://docs.example.com",
    });
    expect(JSON.parse(await run("restore", "echo"))).toMatchObject({ status: "active", sunset_at: null });
    await expect(run("deprecate", "echo", "--sunset", "2020-01-01")).rejects.toThrow("90 days");
    await expect(run("deprecate", "echo", "--sunset", "soon")).rejects.toThrow("no time");
    expect(await run("deregister", "asker", "1.0.0")).toBe("done");
    expect(JSON.parse(await run("show", "asker"))).toMatchObject({ versions: [{ status: "inactive" }] });
    await expect(run("show", "nobody")).rejects.toThrow("404");
    await expect(run("fly")).rejects.toThrow("There is no fly");
  });

  it("keeps the keys that publishers sign with", async () => {
    const { tenantId } = await platform.tenant();
    const file = join(folder, "key.pub.pem");
    await writeFile(file, generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ type: "spki", format: "pem" }));
    expect(await run("keys")).toBe("There are none.");
    await run("trust", "house", file);
    await run("trust", "house", file);
    await run("trust", "acme", file, "--tenant", publicId("tenant", tenantId), "--expires", "2100-01-01");
    expect(await run("keys")).toBe(`acme\t${tenantId}\tuntil 2100-01-01T00:00:00.000Z\nhouse\tplatform`);
    await run("revoke", "house");
    expect(await run("keys")).toContain("house\tplatform\trevoked");
    await expect(run("revoke", "nobody")).rejects.toThrow("no key");
    await expect(run("trust", "odd", file, "--tenant", "acme")).rejects.toThrow("ten_");
    expect(await run("admission-key")).toContain("BEGIN PUBLIC KEY");
  });
});
