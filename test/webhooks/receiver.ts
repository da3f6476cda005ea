/** A receiver of webhooks on loopback that does as it is told and remembers what it heard. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { Webhook } from "standardwebhooks";

export interface Heard {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  at: number;
}

export type Behaviour = (request: IncomingMessage, response: ServerResponse, heard: Heard) => void;

export interface Receiver {
  url: string;
  heard: Heard[];
  /** What it answers from now on; 204 at first. */
  answer(behaviour: Behaviour): void;
  /** The next that it hears, or the first that fits. */
  hears(fits?: (heard: Heard) => boolean): Promise<Heard>;
  close(): Promise<void>;
}

export async function startReceiver(first: Behaviour = (_, response) => response.writeHead(204).end()): Promise<Receiver> {
  let behaviour = first;
  const heard: Heard[] = [];
  const waiting = new Set<() => void>();
  const sockets = new Set<Socket>();
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const one = { path: request.url ?? "", headers: request.headers, body: Buffer.concat(chunks).toString("utf8"), at: Date.now() };
    heard.push(one);
    behaviour(request, response, one);
    for (const wake of waiting) wake();
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    heard,
    answer(next) {
      behaviour = next;
    },
    async hears(fits = () => true) {
      for (;;) {
        const found = heard.find(fits);
        if (found) return found;
        await new Promise<void>((resolve) => {
          const wake = () => {
            waiting.delete(wake);
            resolve();
          };
          waiting.add(wake);
        });
      }
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Throws unless the library that receivers use takes it. */
export const verify = (secret: string, { body, headers }: Heard): void => void new Webhook(secret).verify(body, headers as Record<string, string>);
