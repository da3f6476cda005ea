import { createServer, type Server } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import type { NodeContext } from "../../shared/sdk/src/index.ts";
import { scopedArtifacts } from "../../shared/sdk/src/scoped-artifacts.ts";
import { PluginHarness } from "../../shared/sdk/src/testing/index.ts";
import { pluginOf } from "./plugins.ts";

let harness: PluginHarness | undefined;
let server: Server | undefined;
afterEach(async () => {
  await harness?.close();
  server?.close();
  server?.closeAllConnections();
  harness = server = undefined;
});

const BOTH = { requiredScopes: ["store:write", "store:read"] };
const storing = (work: (ctx: NodeContext) => Promise<string>, scopes = BOTH) => new PluginHarness(pluginOf(work, scopes));

describe("artifacts", () => {
  it("are stored, read back byte for byte, and listed once in the output", async () => {
    const name = "review-1.2_final.SARIF.json";
    const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => i % 256);
    harness = storing(async ({ artifacts }) => {
      await artifacts.put({ name, mediaType: "text/plain", content: "first" });
      await artifacts.put({ name, mediaType: "application/octet-stream", content: bytes });
      await artifacts.put({ name: "empty", mediaType: "text/plain", content: "" });
      const back = await artifacts.get(name);
      return `${Buffer.from(back ?? []).equals(bytes)} ${(await artifacts.get("empty"))?.length} ${await artifacts.get("missing")}`;
    });
    const output = await harness.run({ task: "do" });
    expect(output.result).toBe("true 0 null");
    expect(output.artifacts.map(({ name, media_type, size_bytes }) => [name, media_type, size_bytes])).toEqual([
      [name, "application/octet-stream", 70_000],
      ["empty", "text/plain", 0],
    ]);
    expect([...harness.lastRun.artifacts.keys()]).toEqual([name, "empty"]);
  });

  it("stay listed when the task fails afterwards", async () => {
    harness = storing(async ({ artifacts }) => {
      await artifacts.put({ name: "log.txt", mediaType: "text/plain", content: "so far" });
      throw new Error("later");
    });
    expect(await harness.run({ task: "do" })).toMatchObject({ status: "failed", artifacts: [{ name: "log.txt" }] });
  });

  it.each([".", "..", "", "-a", "a/b", "a b", "ä", "a\n", "x".repeat(201)])("refuse the name %j before any call", async (name) => {
    harness = storing(async ({ artifacts }) => (await artifacts.put({ name, mediaType: "text/plain", content: "" })).name);
    expect(await harness.run({ task: "do" })).toMatchObject({ error_code: "INTERNAL", error_cause: "plugin" });
    expect(harness.calls).toEqual([]);
  });

  it("need the scope in the manifest", async () => {
    harness = storing(async ({ artifacts }) => (await artifacts.put({ name: "a", mediaType: "text/plain", content: "" })).name, {
      requiredScopes: ["store:read"],
    });
    expect(await harness.run({ task: "do" })).toMatchObject({ error_cause: "plugin" });
    expect(harness.lastRun.thrown).toMatchObject({ message: "the manifest does not declare the scope store:write" });
  });

  describe("in a store that fails", () => {
    const REF = {
      artifact_id: "art_1",
      name: "a",
      media_type: "text/plain",
      size_bytes: 1,
      sha256: "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    };

    /** Answers each request with the next of these; `null` breaks the connection. */
    async function storeAnswering(...answers: ({ status: number; body?: object } | null)[]) {
      let calls = 0;
      server = createServer((request, response) => {
        const answer = answers[calls++];
        request.resume().on("end", () => {
          if (!answer) return request.socket.destroy();
          response.writeHead(answer.status, { "content-type": "application/json" }).end(JSON.stringify(answer.body ?? {}));
        });
      });
      await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
      const address = server.address();
      const port = typeof address === "object" ? address?.port : 0;
      const store = scopedArtifacts({
        gatewayUrl: `http://127.0.0.1:${port}`,
        token: "t",
        scopes: BOTH.requiredScopes,
        signal: new AbortController().signal,
        trace: {},
        onStored() {},
      });
      return { put: () => store.put({ name: "a", mediaType: "text/plain", content: "a" }), calls: () => calls };
    }

    it("are tried three times on 5xx and broken connections", async () => {
      const { put, calls } = await storeAnswering({ status: 503 }, null, { status: 200, body: REF });
      expect(await put()).toEqual(REF);
      expect(calls()).toBe(3);
    });

    it("are given up after that", async () => {
      const { put, calls } = await storeAnswering({ status: 500 }, { status: 500 }, { status: 500 }, { status: 200, body: REF });
      await expect(put()).rejects.toMatchObject({ name: "GatewayError", status: 500 });
      expect(calls()).toBe(3);
    });

    it("are not tried again on 4xx", async () => {
      const { put, calls } = await storeAnswering({ status: 413 }, { status: 200, body: REF });
      await expect(put()).rejects.toMatchObject({ status: 413 });
      expect(calls()).toBe(1);
    });

    it("are not taken for stored when the store holds other bytes", async () => {
      const { put } = await storeAnswering({ status: 200, body: { ...REF, sha256: "0".repeat(64) } });
      await expect(put()).rejects.toThrow("other bytes");
    });
  });
});
