import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import Anthropic from "@anthropic-ai/sdk";
import { expect, test } from "vitest";

test("the scripted provider runs as a process of its own, whose ledger is on disk when it is killed", async () => {
  const folder = await mkdtemp(join(tmpdir(), "aau-provider-"));
  const ledgerFile = join(folder, "ledger.jsonl");
  const file = fileURLToPath(new URL("../support/scripted-provider.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", file, "--port", "0", "--ledger", ledgerFile], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = await once(createInterface(child.stdout), "line", { signal: AbortSignal.timeout(15_000) });
    const { url } = JSON.parse(String(line));
    const client = new Anthropic({ baseURL: url, apiKey: "k", maxRetries: 0, timeout: 10_000 });
    const ask = (content: string) => client.messages.create({ model: "m", max_tokens: 10, messages: [{ role: "user", content }] });

    expect((await ask("go on [provider:answer as told]")).content).toEqual([{ type: "text", text: "as told" }]);
    await expect(ask("[provider:failure 429 2]")).rejects.toMatchObject({ status: 429 });
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;

    const lines = (await readFile(ledgerFile, "utf8"))
      .trim()
      .split("\n")
      .map((one) => JSON.parse(one));
    expect(lines).toContainEqual(expect.objectContaining({ event: "arrived", call: 1, model: "m", usage: null }));
    expect(lines).toContainEqual(expect.objectContaining({ event: "answering", call: 1, status: 200, usage: expect.objectContaining({ input_tokens: 100, output_tokens: 20 }) }));
    expect(lines).toContainEqual(expect.objectContaining({ event: "answering", call: 2, status: 429, usage: null }));
  } finally {
    child.kill("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  }
}, 30_000);
