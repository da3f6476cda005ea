/**
 * What stands before the functions in a cluster: routes the public API to its functions, and spreads requests for one function over
 * its instances, past those that are known to be down or stopped. On request it tears a reply in half.
 */
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from "node:http";

export interface Front {
  url: string;
  /** Sends half of the next reply of a request with this method, then breaks the connection; resolves when it has happened. */
  tearNext(method: string): Promise<void>;
  close(): Promise<void>;
}

/** The ports of the instances that take this request now; none means 503. */
export type Choose = (method: string, path: string) => readonly number[];

export async function startFront(choose: Choose): Promise<Front> {
  // Connections are not kept: one to an instance that was killed or stopped would break a request that never reached it.
  const agent = new Agent({ keepAlive: false });
  const torn = new Map<string, () => void>();
  let turn = 0;

  function pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = "GET", url = "/" } = incoming;
    const ports = choose(method, url);
    const port = ports[turn++ % Math.max(1, ports.length)];
    if (port === undefined) {
      refuse(outgoing);
      return;
    }
    const upstream = request({ host: "127.0.0.1", port, method, path: url, headers: incoming.headers, agent }, (answer) => {
      const tear = torn.get(method);
      torn.delete(method);
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      if (!tear) {
        answer.pipe(outgoing);
        answer.on("error", () => outgoing.destroy());
        return;
      }
      answer.once("data", (chunk: Buffer) => {
        outgoing.write(chunk.subarray(0, Math.floor(chunk.length / 2)), () => {
          outgoing.destroy();
          tear();
        });
      });
    });
    upstream.on("error", (error) => {
      // Nobody listens there: the request has reached no one. Anything else is a broken connection, and stays one.
      if (!outgoing.headersSent && "code" in error && error.code === "ECONNREFUSED") refuse(outgoing);
      else outgoing.destroy();
    });
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
  }

  const server = createServer({ requestTimeout: 0 }, pass);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the front has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    tearNext: (method) => new Promise((happened) => torn.set(method, happened)),
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      agent.destroy();
    },
  };
}

function refuse(outgoing: ServerResponse): void {
  outgoing.writeHead(503, { "content-type": "application/json" });
  outgoing.end('{"error":{"code":"SERVICE_UNAVAILABLE","message":"no instance is up","retryable":true}}');
}
