import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { APIConnectionTimeoutError, AuthenticationError, InternalServerError } from "openai";
import * as v from "valibot";
import { afterEach, describe, expect, it } from "vitest";
import { openaiEmbedder } from "../../shared/models/embeddings-openai.ts";

const Asked = v.object({ model: v.string(), input: v.array(v.string()), encoding_format: v.string() });
type Asked = v.InferOutput<typeof Asked>;

let server: Server | undefined;

/** A server that speaks just enough of the protocol; `reply` decides what comes back. */
async function serve(reply: (asked: Asked, response: ServerResponse, request: IncomingMessage) => void): Promise<string> {
  const started = createServer(async (request, response) => reply(v.parse(Asked, JSON.parse(await text(request))), response, request));
  server = started;
  started.listen(0, "127.0.0.1");
  await once(started, "listening");
  const address = started.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return `http://127.0.0.1:${address.port}/v1`;
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json", "retry-after-ms": "1" }).end(JSON.stringify(body));
}

/** The text's number stands in the first dimension that is not zero, so that order can be checked. */
function vectors(input: readonly string[], width = 1536) {
  const data = input.map((one, index) => ({
    object: "embedding",
    index,
    embedding: Array.from({ length: width }, (_, d) => (d === Number(one) ? 2 : 0)),
  }));
  return { object: "list", model: "text-embedding-3-small", usage: { prompt_tokens: 1, total_tokens: 1 }, data };
}

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

describe("the OpenAI embedder", () => {
  it("asks for text-embedding-3-small with the key and gives unit vectors in the order of the texts", async () => {
    let seen: { asked: Asked; key: string | undefined; path: string | undefined } | undefined;
    const baseUrl = await serve((asked, response, request) => {
      seen = { asked, key: request.headers.authorization, path: request.url };
      const reply = vectors(asked.input);
      answer(response, 200, { ...reply, data: reply.data.reverse() });
    });
    const result = await openaiEmbedder({ apiKey: "key-1", baseUrl }).embed(["7", "3"]);
    expect(seen).toEqual({
      asked: { model: "text-embedding-3-small", input: ["7", "3"], encoding_format: "float" },
      key: "Bearer key-1",
      path: "/v1/embeddings",
    });
    expect(result.map((vector) => vector.indexOf(1))).toEqual([7, 3]);
  });

  it("splits a long list into several requests and keeps its order", async () => {
    const sizes: number[] = [];
    const baseUrl = await serve((asked, response) => {
      sizes.push(asked.input.length);
      answer(response, 200, vectors(asked.input));
    });
    const texts = Array.from({ length: 300 }, (_, i) => String(i));
    const result = await openaiEmbedder({ apiKey: "k", baseUrl }).embed(texts);
    expect(sizes).toEqual([128, 128, 44]);
    expect(result.map((vector) => vector.indexOf(1))).toEqual(texts.map(Number));
  });

  it("sends a bounded, non-empty, well-formed input whatever the command is", async () => {
    let input: string[] = [];
    const baseUrl = await serve((asked, response) => {
      input = asked.input;
      answer(response, 200, vectors(asked.input));
    });
    await openaiEmbedder({ apiKey: "k", baseUrl }).embed(["", "   ", "x".repeat(1_000_000), "ok\ud800"]);
    expect(input.map((one) => one.length)).toEqual([1, 1, 8_000, 2]);
  });

  it("refuses vectors of another width and says so", async () => {
    const baseUrl = await serve((asked, response) => answer(response, 200, vectors(asked.input, 768)));
    await expect(openaiEmbedder({ apiKey: "k", baseUrl }).embed(["1"])).rejects.toThrow("text-embedding-3-small has 1536 dimensions, but the embedding service answered with 768");
  });

  it("refuses an answer that leaves a text out", async () => {
    const baseUrl = await serve((asked, response) => answer(response, 200, vectors(asked.input.slice(1))));
    await expect(openaiEmbedder({ apiKey: "k", baseUrl }).embed(["1", "2"])).rejects.toThrow("left out text 2 of 2");
  });

  it("refuses an answer of another shape", async () => {
    const baseUrl = await serve((_, response) => answer(response, 200, { hello: "world" }));
    await expect(openaiEmbedder({ apiKey: "k", baseUrl }).embed(["1"])).rejects.toThrow("not a list of embeddings");
  });

  it("tries once more when the service stumbles, and not a third time", async () => {
    let requests = 0;
    const baseUrl = await serve((asked, response) => {
      requests += 1;
      if (requests === 1) answer(response, 500, { error: { message: "stumbled" } });
      else answer(response, 200, vectors(asked.input));
    });
    expect(await openaiEmbedder({ apiKey: "k", baseUrl }).embed(["1"])).toHaveLength(1);
    expect(requests).toBe(2);
    server?.close();

    let failures = 0;
    const broken = await serve((_, response) => {
      failures += 1;
      answer(response, 503, { error: { message: "down" } });
    });
    await expect(openaiEmbedder({ apiKey: "k", baseUrl: broken }).embed(["1"])).rejects.toBeInstanceOf(InternalServerError);
    expect(failures).toBe(2);
  });

  it("does not try a wrong key again", async () => {
    let requests = 0;
    const baseUrl = await serve((_, response) => {
      requests += 1;
      answer(response, 401, { error: { message: "wrong key" } });
    });
    await expect(openaiEmbedder({ apiKey: "k", baseUrl }).embed(["1"])).rejects.toBeInstanceOf(AuthenticationError);
    expect(requests).toBe(1);
  });

  it("gives up on a service that never answers", async () => {
    const baseUrl = await serve(() => {});
    await expect(openaiEmbedder({ apiKey: "k", baseUrl, timeoutMs: 20 }).embed(["1"])).rejects.toBeInstanceOf(APIConnectionTimeoutError);
  });

  it("closes its request when the caller aborts", async () => {
    const stop = new AbortController();
    const closed = new Promise<void>((resolve) => {
      void serve((_, response) => {
        response.on("close", resolve);
        stop.abort();
      }).then((baseUrl) =>
        openaiEmbedder({ apiKey: "k", baseUrl })
          .embed(["1"], stop.signal)
          .catch(() => {}),
      );
    });
    await expect(closed).resolves.toBeUndefined();
  });
});
