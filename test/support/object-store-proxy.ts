/** Stands before the real object store of a test, and plays the ways in which one is away. */
import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";

export type StoreFault = "none" | "refuse" | "hang" | "slow-down" | "forbidden" | "corrupt";

export interface ObjectStoreProxy {
  url: string;
  fault: StoreFault;
  /** Requests that arrived. */
  requests: string[];
  stop(): Promise<void>;
}

const ERRORS = {
  "slow-down": [503, "SlowDown"],
  forbidden: [403, "AccessDenied"],
} as const;

export async function startObjectStoreProxy(target: () => string): Promise<ObjectStoreProxy> {
  const server = createServer((request, response) => {
    proxy.requests.push(`${request.method} ${request.url}`);
    const { fault } = proxy;
    request.on("error", () => {});
    if (fault === "refuse") return void request.socket.destroy();
    if (fault === "hang") return void request.resume();
    if (fault === "slow-down" || fault === "forbidden") {
      const [status, code] = ERRORS[fault];
      request.resume();
      response.writeHead(status, { "content-type": "application/xml" }).end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>scripted</Message></Error>`);
      return;
    }
    const forward = httpRequest(`${target()}${request.url}`, { method: request.method, headers: request.headers }, (answer) => {
      const headers = { ...answer.headers };
      // Something between us and the store changed the object: it says so by another name, and by other bytes.
      if (fault === "corrupt") headers.etag = '"00000000000000000000000000000000"';
      if (fault === "corrupt" && request.method === "GET") delete headers["content-length"];
      response.writeHead(answer.statusCode ?? 502, headers);
      if (fault === "corrupt" && request.method === "GET") {
        answer.resume();
        response.end("other bytes");
      } else answer.pipe(response);
    });
    forward.on("error", () => response.destroy());
    request.pipe(forward);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const proxy: ObjectStoreProxy = {
    url: `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`,
    fault: "none",
    requests: [],
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
  return proxy;
}
