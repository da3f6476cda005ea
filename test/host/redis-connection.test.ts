import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { tryRedis } from "../../shared/redis/availability.ts";
import { connectRedis } from "../../shared/redis/connect.ts";

let folder: string;
let server: LocalRedis;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-test-"));
  server = await startRedis(folder, { persist: false });
});
afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Keeps this process from doing anything else, as a large JSON text or a cold embedding model does. */
function stall(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

describe("a connection to Redis", () => {
  it("runs a script that is defined while other commands wait to be sent", async () => {
    const redis = connectRedis(server.url);
    try {
      await vi.waitFor(() => expect(redis.status).toBe("ready"));
      const waiting = redis.set("before", "1");
      redis.defineCommand("aauLate", { numberOfKeys: 1, lua: "return redis.call('GET', KEYS[1])" });
      const late = (redis as unknown as { aauLate(key: string): Promise<string> }).aauLate("before");
      expect(await Promise.all([waiting, late, redis.get("before")])).toEqual(["OK", "1", "1"]);
    } finally {
      redis.disconnect();
    }
  });

  it("takes an answer that came while this process was busy, however long that was", async () => {
    const redis = connectRedis(server.url);
    try {
      await vi.waitFor(() => expect(redis.status).toBe("ready"));
      await redis.set("x", "here");
      redis.defineCommand("aauSame", { numberOfKeys: 1, lua: "return redis.call('GET', KEYS[1])" });
      const asked = [redis.get("x"), redis.set("y", "1"), redis.eval("return 7", 0), tryRedis(redis, (r) => r.get("x"))];
      // Lets the commands out of the process first.
      await new Promise((resolve) => setImmediate(resolve));
      stall(600);
      expect(await Promise.all(asked)).toEqual(["here", "OK", 7, "here"]);
    } finally {
      redis.disconnect();
    }
  });

  it("gives up on a server that does not answer, and leaves it alone for a moment", async () => {
    const sockets = new Set<Socket>();
    let bytes = 0;
    // The handshake is answered, nothing after it.
    let isSilent = false;
    const silent = createServer((socket) => {
      sockets.add(socket);
      socket.on("data", (data) => {
        bytes += data.length;
        if (!isSilent) socket.write("+OK\r\n".repeat(data.toString().match(/^\*/gm)?.length ?? 0));
      });
    });
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const address = silent.address();
    const redis = connectRedis(`redis://127.0.0.1:${typeof address === "object" ? address?.port : 0}`, { enableReadyCheck: false });
    try {
      await vi.waitFor(() => expect(redis.status).toBe("ready"));
      isSilent = true;
      expect(await tryRedis(redis, (r) => r.get("x"))).toBeNull();
      const sent = bytes;
      expect(await tryRedis(redis, (r) => r.get("x"))).toBeNull();
      expect(bytes).toBe(sent);
      await expect(redis.get("x")).rejects.toThrow("timed out");
    } finally {
      redis.disconnect();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => silent.close(resolve));
    }
  });

  it("fails at once where nobody listens", async () => {
    const redis = connectRedis("redis://127.0.0.1:1");
    try {
      expect(await tryRedis(redis, (r) => r.get("x"))).toBeNull();
    } finally {
      redis.disconnect();
    }
  });
});
