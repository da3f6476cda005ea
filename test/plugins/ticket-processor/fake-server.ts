/** A local HTTP server of a test: JSON in, JSON out, with a log of what it was asked and faults on request. */
import { once } from "node:events";
import { createServer } from "node:http";

export interface Asked {
  method: string;
  path: string;
  query: URLSearchParams;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into requests of every shape.
  body: any;
  authorization: string;
}

export interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

export interface FakeServer {
  url: string;
  asked: Asked[];
  /** Answers instead of the server, for as long as it gives an answer. */
  fault: ((asked: Asked) => Reply | "hang up" | undefined | Promise<Reply | "hang up" | undefined>) | null;
  stop(): Promise<void>;
}

export async function startFakeServer(answer: (asked: Asked) => Reply): Promise<FakeServer> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(Buffer.from(chunk));
    const url = new URL(request.url ?? "/", "http://fake");
    const text = Buffer.concat(chunks).toString();
    const asked: Asked = {
      method: request.method ?? "",
      path: url.pathname,
      query: url.searchParams,
      body: text === "" ? null : JSON.parse(text),
      authorization: request.headers.authorization ?? "",
    };
    fake.asked.push(asked);
    const fault = await fake.fault?.(asked);
    if (fault === "hang up") return void response.destroy();
    const { status, body = null, headers = {} } = fault ?? answer(asked);
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(status === 204 ? undefined : JSON.stringify(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const fake: FakeServer = {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    asked: [],
    fault: null,
    async stop() {
      server.closeAllConnections();
      server.close();
    },
  };
  return fake;
}
