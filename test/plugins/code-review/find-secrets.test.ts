import { describe, expect, it } from "vitest";
import { parseUnifiedDiff } from "../../../functions/plugins/code-review/diff/parse-unified-diff.ts";
import { wholeFile } from "../../../functions/plugins/code-review/diff/whole-file.ts";
import { maskSecrets } from "../../../functions/plugins/code-review/rules/find-secrets.ts";
import { diffOf } from "./review-of.ts";

const breathe = async () => {};
const inFile = (name: string, text: string) => maskSecrets(wholeFile(name, text).file, breathe);
const textOf = (file: { hunks: readonly { rows: readonly { text: string }[] }[] }) => file.hunks.flatMap((hunk) => hunk.rows.map((row) => row.text)).join("\n");
// Put together here, so that no scanner takes this file for a leak.
const fakeToken = `ghp_${"abcdefghij0123456789".repeat(2).slice(0, 36)}`;
const fakeKey = `-----BEGIN RSA ${"PRIVATE"} KEY-----\n${"MIIEpAIBAAKCAQEAexampleexampleexampleexampleexampleexampleexamp\n".repeat(12)}-----END RSA ${"PRIVATE"} KEY-----`;

describe("finding secrets", () => {
  it.each([
    ["a connection string", `const db = "postgres://app:not-a-real-password@db.example.com/app";`, "not-a-real-password"],
    ["a token", `TOKEN=${fakeToken}`, fakeToken],
    ["a private key over many lines", fakeKey, "MIIEpAIBAAKCAQEA"],
    ["a literal password", `const password = "Tr0ub4dor-and-3";`, "Tr0ub4dor"],
  ])("finds and masks %s", async (_name, text, secret) => {
    const { file, secrets } = await inFile("config.txt", text);
    expect(secrets).toHaveLength(1);
    expect(secrets[0]?.line).toBe(1);
    expect(textOf(file)).not.toContain(secret);
    expect(JSON.stringify(secrets)).not.toContain(secret);
  });

  it.each([
    'password = "changeme"',
    "const apiKey = process.env.API_KEY;",
    'const secret = "${SECRET}";',
    'token: "<your-token-here>"',
    'passwordLabel = "password"',
    'const apiKey = "your-api-key-here";',
  ])("leaves %s alone", async (text) => {
    expect((await inFile("a.js", text)).secrets).toEqual([]);
  });

  it("is not switched off by a comment in the file", async () => {
    expect((await inFile("a.js", `// secretlint-disable\nconst t = "${fakeToken}";`)).secrets).toHaveLength(1);
  });

  it("keeps quotes and brackets, so that the code still parses", async () => {
    const { file } = await inFile("a.js", `f("postgres://app:not-a-real-password@db.example.com/app");`);
    expect(textOf(file)).toMatch(/^f\("\*+"\);$/);
  });

  it("reports what the change adds, and masks also what it removes or leaves", async () => {
    const diff = diffOf("a.env", 1, [` A=${fakeToken}`, `-B=${fakeToken}`, "+C=1"]);
    const [raw] = parseUnifiedDiff(diff).files;
    if (!raw) throw new Error("the diff has one file");
    const { file, secrets } = await maskSecrets(raw, breathe);
    expect(secrets).toEqual([]);
    expect(textOf(file)).not.toContain(fakeToken);
    expect(file.hunks[0]?.rows.map((row) => row.kind)).toEqual(["context", "removed", "added"]);
  });

  it("finds a secret that begins before a piece's edge in a long file", async () => {
    const filler = Array.from({ length: 1995 }, (_, index) => `line ${index}`).join("\n");
    const { file, secrets } = await inFile("long.txt", `${filler}\n${fakeKey}\n`);
    expect(secrets.map((secret) => secret.line)).toEqual([1996]);
    expect(textOf(file)).not.toContain("MIIEpAIBAAKCAQEA");
  });
});
