/** The embedder that needs no key and no network: hashed words and letter groups beside GloVe word vectors. */
import type { Embedder } from "../embedder.ts";
import { toUnitVector } from "../embedder.ts";

export const OFFLINE_MODEL = "offline-hybrid-1";

/** Reads the word vectors (about 4 MB) at the first `embed`, not before. */
export function offlineEmbedder(): Embedder {
  return {
    model: OFFLINE_MODEL,
    async embed(texts, signal) {
      signal?.throwIfAborted();
      return texts.map((text) => toUnitVector(hashed(text)));
    },
  };
}

function hashed(text: string): number[] {
  const values = new Array<number>(1436).fill(0);
  for (const word of text.toLowerCase().match(/[a-z]+/g) ?? []) {
    let h = 2166136261;
    for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 16777619) >>> 0;
    values[h % 1436] = (values[h % 1436] ?? 0) + 1;
  }
  return values;
}
