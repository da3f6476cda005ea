/** A TCP proxy that does what networks do: it stalls, slows down, cuts, and loses the answer to one chosen request. */
import { connect, createServer, type Socket } from "node:net";

export interface Wire {
  port: number;
  /** Nothing passes any more, in either direction; connections stand, and new ones are taken and stay silent. */
  stall(): void;
  /** Every chunk of an answer comes so much later. */
  slow(ms: number): void;
  /** Resets every connection; new ones pass. */
  cut(): void;
  /** Swallows the answer to the next request that contains `text`, and resets its connection; resolves when it has happened. */
  loseAnswerTo(text: string): Promise<void>;
  /** Everything passes again; what was stalled goes on. */
  heal(): void;
  close(): Promise<void>;
}

export async function startWire(target: { host: string; port: number }): Promise<Wire> {
  const pairs = new Set<{ client: Socket; upstream: Socket }>();
  const lost: { text: string; happened(): void }[] = [];
  let isStalled = false;
  let delayMs = 0;

  const server = createServer((client) => {
    const upstream = connect(target);
    const pair = { client, upstream };
    pairs.add(pair);
    let losing: (() => void) | null = null;
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        pairs.delete(pair);
        client.destroy();
        upstream.destroy();
      });
      if (isStalled) socket.pause();
    }
    client.on("data", (chunk) => {
      const found = lost.findIndex(({ text }) => chunk.includes(text));
      if (found >= 0) losing = lost.splice(found, 1)[0]?.happened ?? null;
      upstream.write(chunk);
    });
    upstream.on("data", (chunk) => {
      if (losing) {
        const happened = losing;
        losing = null;
        client.resetAndDestroy();
        happened();
      } else if (delayMs === 0) client.write(chunk);
      else setTimeout(() => client.write(chunk), delayMs);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no port");

  const each = (act: (socket: Socket) => void) => {
    for (const { client, upstream } of pairs) {
      act(client);
      act(upstream);
    }
  };
  return {
    port: address.port,
    stall() {
      isStalled = true;
      each((socket) => socket.pause());
    },
    slow(ms) {
      delayMs = ms;
    },
    cut: () => each((socket) => socket.resetAndDestroy()),
    loseAnswerTo: (text) => new Promise((happened) => lost.push({ text, happened })),
    heal() {
      isStalled = false;
      delayMs = 0;
      lost.length = 0;
      each((socket) => socket.resume());
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      each((socket) => socket.destroy());
      await closed;
    },
  };
}
