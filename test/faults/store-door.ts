/** Stands before the object store and fails writes in the ways of a store: away, slow, too busy, closed to us. */
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";

export type StoreFault = "away" | "slow" | "busy" | "forbidden";

export interface StoreDoor {
  url: string;
  /** From now on; null heals. */
  fault(kind: StoreFault | null): void;
  close(): Promise<void>;
}

/** Longer than any client of ours waits. */
const SLOW_MS = 60_000;
const ANSWERS: Partial<Record<StoreFault, { status: number; code: string }>> = {
  busy: { status: 503, code: "SlowDown" },
  forbidden: { status: 403, code: "AccessDenied" },
};

export async function startStoreDoor(target: string): Promise<StoreDoor> {
  const { hostname, port } = new URL(target);
  let fault: StoreFault | null = null;

  function pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const upstream = request({ hostname, port, method: incoming.method, path: incoming.url, headers: incoming.headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    upstream.on("error", () => outgoing.destroy());
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
  }

  const server = createServer((incoming, outgoing) => {
    if (fault === null) return pass(incoming, outgoing);
    if (fault === "away") return void incoming.socket.resetAndDestroy();
    if (fault === "slow") return void setTimeout(() => outgoing.destroy(), SLOW_MS).unref();
    const { status = 500, code = "InternalError" } = ANSWERS[fault] ?? {};
    incoming.resume();
    outgoing.writeHead(status, { "content-type": "application/xml" }).end(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>scripted</Message></Error>`);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the store's door has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    fault(kind) {
      fault = kind;
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}
