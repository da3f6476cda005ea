/** Embeddings by OpenAI, or by any server that speaks its protocol at another base URL. */
import OpenAI from "openai";
import * as v from "valibot";
import { EMBEDDING_DIMENSIONS, type Embedder, toUnitVector } from "./embedder.ts";

export const OPENAI_MODEL = "text-embedding-3-small";
/** OpenAI takes up to 2048 inputs and 300,000 tokens a request; this many full-length texts stay below both. */
const BATCH = 128;
/** The model reads 8191 tokens; in the worst case a character is several tokens, in ordinary text a quarter of one. */
const MAX_CHARACTERS = 8_000;
const TIMEOUT_MS = 5_000;

/** Servers that only resemble OpenAI's answer what they like, whatever the SDK's types say. */
const EmbeddingList = v.object({ data: v.array(v.object({ index: v.number(), embedding: v.array(v.number()) })) });

export class EmbeddingError extends Error {
  override readonly name = "EmbeddingError";
}

/** Throws EmbeddingError when the answer has the wrong shape, and the SDK's own errors when the service cannot be reached. */
export function openaiEmbedder(options: { apiKey: string; baseUrl?: string; timeoutMs?: number }): Embedder {
  let client: OpenAI | undefined;
  return {
    model: OPENAI_MODEL,
    async embed(texts, signal) {
      client ??= new OpenAI({ apiKey: options.apiKey, baseURL: options.baseUrl, timeout: options.timeoutMs ?? TIMEOUT_MS, maxRetries: 1 });
      const vectors: Float32Array[] = [];
      for (let from = 0; from < texts.length; from += BATCH) {
        vectors.push(...(await embedBatch(client, texts.slice(from, from + BATCH), signal)));
      }
      return vectors;
    },
  };
}

async function embedBatch(client: OpenAI, texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]> {
  // An empty input is refused by the service; a space is not, and its vector is near nothing.
  const input = texts.map(
    (text) =>
      text
        .slice(0, MAX_CHARACTERS)
        .replace(/\p{Surrogate}/gu, "")
        .trim() || " ",
  );
  const reply = await client.embeddings.create({ model: OPENAI_MODEL, input, encoding_format: "float" }, { signal });
  if (!v.is(EmbeddingList, reply)) throw new EmbeddingError("the embedding service answered with something that is not a list of embeddings");
  const vectors = new Array<Float32Array | undefined>(texts.length).fill(undefined);
  for (const item of reply.data) {
    if (item.embedding.length !== EMBEDDING_DIMENSIONS) {
      throw new EmbeddingError(`${OPENAI_MODEL} has ${EMBEDDING_DIMENSIONS} dimensions, but the embedding service answered with ${item.embedding.length}`);
    }
    vectors[item.index] = toUnitVector(item.embedding);
  }
  return vectors.map((vector, i) => {
    if (vector === undefined) throw new EmbeddingError(`the embedding service left out text ${i + 1} of ${texts.length}`);
    return vector;
  });
}
