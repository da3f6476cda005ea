/** Receivers as F-25 has them: one way to be well, one to be well now and then, and the rest to be a burden. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";

export interface Behaviour {
  name: string;
  /** It takes what it is sent, at the latest when it is sent again. */
  isHealthy: boolean;
  /** An address instead of the receiver's own. */
  elsewhere?: (port: number) => string;
  answer?(request: IncomingMessage, response: ServerResponse, count: number): void;
}

const BOMB_BYTES = 64 * 1024 * 1024;
let bomb: Buffer | undefined;

const CHUNK = Buffer.alloc(64 * 1024, "x");

export const WELL: Behaviour = { name: "well", isHealthy: true, answer: (_, response) => response.writeHead(204).end() };

export function others(canaryPort: number): Behaviour[] {
  const redirect = (status: number): Behaviour => ({
    name: `redirects with ${status}`,
    isHealthy: false,
    answer: (_, response) => response.writeHead(status, { location: `http://127.0.0.1:${canaryPort}/` }).end(),
  });
  return [
    { name: "is down", isHealthy: false, elsewhere: () => "http://127.0.0.1:9/" },
    { name: "has no address", isHealthy: false, elsewhere: () => "http://nobody.invalid/" },
    { name: "speaks no TLS", isHealthy: false, elsewhere: (port) => `https://127.0.0.1:${port}/tls` },
    redirect(301),
    redirect(307),
    { name: "never answers", isHealthy: false, answer: () => {} },
    {
      name: "sends its headers drop by drop",
      isHealthy: false,
      answer({ socket }) {
        socket.write("HTTP/1.1 200 OK\r\n");
        const drip = setInterval(() => socket.write("x-drop: 1\r\n"), 500);
        socket.on("close", () => clearInterval(drip));
      },
    },
    {
      name: "sends its body drop by drop",
      isHealthy: false,
      answer(_, response) {
        response.writeHead(200);
        const drip = setInterval(() => response.write("."), 500);
        response.on("close", () => clearInterval(drip));
      },
    },
    {
      name: "never ends its body",
      isHealthy: true,
      answer(_, response) {
        response.writeHead(200);
        const pour = () => {
          while (!response.destroyed && response.write(CHUNK));
        };
        response.on("drain", pour);
        pour();
      },
    },
    {
      name: "says that its noise is compressed",
      isHealthy: true,
      answer: (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(CHUNK.subarray(0, 1_000)),
    },
    {
      name: "answers with a bomb",
      isHealthy: true,
      answer(_, response) {
        bomb ??= gzipSync(Buffer.alloc(BOMB_BYTES));
        response.writeHead(200, { "content-encoding": "gzip", "content-length": bomb.length }).end(bomb);
      },
    },
    {
      name: "answers after 29 seconds",
      isHealthy: false,
      answer: (_, response) => void setTimeout(() => response.end("at last"), 29_000).unref(),
    },
    { name: "asks to wait for thirty years", isHealthy: false, answer: (_, response) => response.writeHead(429, { "retry-after": "1000000000" }).end() },
    { name: "is gone", isHealthy: false, answer: (_, response) => response.writeHead(410).end() },
    { name: "resets the connection", isHealthy: false, answer: ({ socket }) => socket.resetAndDestroy() },
    { name: "fails", isHealthy: false, answer: (_, response) => response.writeHead(500).end("no") },
    { name: "answers with three megabytes of headers", isHealthy: false, answer: ({ socket }) => socket.end(`HTTP/1.1 200 OK\r\n${"x-more: 1234567890\r\n".repeat(150_000)}\r\n`) },
    {
      name: "closes what it promised to keep",
      isHealthy: true,
      answer: ({ socket }, response) => response.writeHead(200, { connection: "keep-alive" }).end("ok", () => socket.destroy()),
    },
    { name: "flaps", isHealthy: true, answer: (_, response, count) => response.writeHead(count % 3 === 0 ? 503 : 200).end() },
  ];
}
