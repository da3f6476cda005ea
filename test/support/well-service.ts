/** A service that says how a plugin is, and does nothing else. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export interface WellService {
  url: string;
  /** What `GET /health` answers from now on. */
  says(answer: (response: ServerResponse, request: IncomingMessage) => void): void;
  /** How often it was asked. */
  readonly asked: number;
  stop(): Promise<void>;
}

export const sayStatus = (status: string) => (response: ServerResponse) => response.setHeader("content-type", "application/json").end(JSON.stringify({ status, components: {} }));
export const sayCode = (code: number) => (response: ServerResponse) => response.writeHead(code).end("no");

export async function startWellService(): Promise<WellService> {
  let answer: (response: ServerResponse, request: IncomingMessage) => void = sayStatus("healthy");
  let asked = 0;
  const server = createServer((request, response) => {
    asked += 1;
    answer(response, request);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`,
    says(next) {
      answer = next;
    },
    get asked() {
      return asked;
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
