/** What stands outside of the platform: a tool with effects that cannot be taken back, and an embedding service that can be told to fail. */
import { appendFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import plugin from "./plugin.ts";

interface Outside {
  url: string;
  close(): Promise<void>;
}

async function serve(listener: RequestListener): Promise<Outside> {
  const server = createServer(listener);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function bodyOf(request: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

/** Writes down every request before it answers. */
export function startTool(file: string): Promise<Outside> {
  return serve((request, response) => {
    bodyOf(request).then(
      (body) => {
        appendFileSync(file, `${body}\n`);
        response.end("done");
      },
      () => response.destroy(),
    );
  });
}

export type EmbeddingFault = "error" | "slow" | "narrow";

export interface Embeddings extends Outside {
  fault(kind: EmbeddingFault | null): void;
}

const DIMENSIONS = 1536;

/** A text that says what the probe can do is near the probe, any other is far from everything. Speaks OpenAI's protocol. */
function vectorOf(text: string, width: number): number[] {
  const vector = new Array<number>(width).fill(0);
  const isProbe = plugin.manifest.capabilities.some((capability) => text.includes(capability));
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) % (width - 1);
  vector[isProbe ? 0 : 1 + hash] = 1;
  return vector;
}

export async function startEmbeddings(): Promise<Embeddings> {
  let fault: EmbeddingFault | null = null;
  const outside = await serve(async (request, response) => {
    const { input } = JSON.parse(await bodyOf(request)) as { input: string | string[] };
    if (fault === "slow") return;
    if (fault === "error") return void response.writeHead(500, { "content-type": "application/json" }).end('{"error":{"message":"scripted"}}');
    const width = fault === "narrow" ? 8 : DIMENSIONS;
    const data = [input].flat().map((text, index) => ({ object: "embedding", index, embedding: vectorOf(text, width) }));
    response
      .writeHead(200, { "content-type": "application/json" })
      .end(JSON.stringify({ object: "list", model: "text-embedding-3-small", data, usage: { prompt_tokens: 1, total_tokens: 1 } }));
  });
  return {
    ...outside,
    fault(kind) {
      fault = kind;
    },
  };
}
