/** An HTTP server around a fetch function, with the time-outs of RELIABILITY 2.2 and an orderly end. */
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { answerUnaddressed, answerUnreadable } from "./unreadable-request.ts";

const MAX_HEADER_BYTES = 16_384;

export interface Listening {
  port: number;
  /** Stops taking connections, waits for open requests up to `graceMs`, then cuts what is left. */
  close(graceMs: number): Promise<void>;
}

export async function listen(fetch: (request: Request) => Response | Promise<Response>, { port, host = "0.0.0.0" }: { port: number; host?: string }): Promise<Listening> {
  const server: Server = createServer(
    { headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 65_000, maxHeaderSize: MAX_HEADER_BYTES },
    // It puts its own light Response in the place of the global one: a body that is a string then leaves without a web stream.
    getRequestListener(fetch, { overrideGlobalObjects: true, errorHandler: answerUnaddressed }),
  );
  server.maxHeadersCount = 100;
  server.on("clientError", (error, socket) => answerUnreadable(error, socket as Socket, MAX_HEADER_BYTES));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      // A keep-alive connection becomes idle only after its last answer, so idle ones are swept until all are gone.
      const sweep = setInterval(() => server.closeIdleConnections(), 50);
      const cut = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearInterval(sweep);
      clearTimeout(cut);
    },
  };
}
