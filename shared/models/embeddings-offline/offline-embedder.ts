/**
 * The embedder that needs no key and no network. A vector has three parts: hashed stems and letter groups (exact words, names, typos),
 * the concepts of a small workplace thesaurus, and the mean of GloVe word vectors without their first principal component.
 * The same text gives the same bytes for ever under one model name: whoever changes a number here changes the name too.
 */
import { readFile } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { stemmer } from "stemmer";
import { EMBEDDING_DIMENSIONS, type Embedder, toUnitVector } from "../embedder.ts";
import { CONCEPT_COUNT, conceptsOf } from "./concepts.ts";
import { corrected } from "./spelling.ts";
import { decodeWordVectors, type WordVectors } from "./word-vectors.ts";
import { rarity, wordsOf } from "./words.ts";

export const OFFLINE_MODEL = "offline-hybrid-1";

const MEANING_SHARE = 0.4;
const CONCEPT_WEIGHT = 1.2;
const GROUPS_WEIGHT = 0.6;
const GROUP_LENGTHS = [3, 4];
/** The rank of a word that is not among the 40,000: rarer than all of them. */
const UNKNOWN_RANK = 100_000;
/** About 10 ms of work; then other requests have their turn. */
const TEXTS_A_TURN = 64;

/** Reads the word vectors (4 MB) at the first `embed`, not before, and keeps them as long as it lives. */
export function offlineEmbedder(): Embedder {
  let loading: Promise<WordVectors> | undefined;
  const load = () => {
    loading ??= readWordVectors().catch((cause: unknown) => {
      loading = undefined;
      throw new Error("the word vectors of the offline embedding model cannot be read", { cause });
    });
    return loading;
  };
  return {
    model: OFFLINE_MODEL,
    async embed(texts, signal) {
      signal?.throwIfAborted();
      const wordVectors = await load();
      const vectors: Float32Array[] = [];
      for (const text of texts) {
        if (vectors.length % TEXTS_A_TURN === TEXTS_A_TURN - 1) await setImmediate();
        signal?.throwIfAborted();
        vectors.push(embedText(text, wordVectors));
      }
      return vectors;
    },
  };
}

async function readWordVectors(): Promise<WordVectors> {
  return decodeWordVectors(await readFile(new URL("./word-vectors.bin", import.meta.url)));
}

function embedText(text: string, { dimensions, ranks, rows }: WordVectors): Float32Array {
  const hashedWidth = EMBEDDING_DIMENSIONS - dimensions - CONCEPT_COUNT;
  const form = new Float64Array(EMBEDDING_DIMENSIONS - dimensions);
  const meaning = new Float64Array(dimensions);
  const add = (feature: string, weight: number) => {
    const slot = hash(feature) % hashedWidth;
    form[slot] = (form[slot] ?? 0) + weight;
  };
  for (const { text: word, weight: placed } of corrected(wordsOf(text), ranks)) {
    const rank = ranks.get(word);
    const weight = placed * rarity(rank ?? UNKNOWN_RANK);
    const stem = stemmer(word);
    add(`w:${stem}`, weight);
    const groups = letterGroups(word);
    for (const group of groups) add(`g:${group}`, (GROUPS_WEIGHT * weight) / Math.sqrt(groups.length));
    const concepts = conceptsOf(stem);
    for (const concept of concepts) {
      const slot = hashedWidth + concept;
      form[slot] = (form[slot] ?? 0) + (CONCEPT_WEIGHT * weight) / concepts.length;
    }
    if (rank !== undefined) addDirection(meaning, rows.subarray(rank * dimensions, (rank + 1) * dimensions), weight);
  }
  const joined = new Float64Array(EMBEDDING_DIMENSIONS);
  joined.set(scaled(form, Math.sqrt(1 - MEANING_SHARE)));
  joined.set(scaled(meaning, Math.sqrt(MEANING_SHARE)), form.length);
  return toUnitVector(joined);
}

/** Groups of 3 and 4 letters with the word's ends marked: they survive a typo and join `login` to `logins`. */
function letterGroups(word: string): string[] {
  if (word.length < 3) return [];
  const marked = `#${word}#`;
  return GROUP_LENGTHS.flatMap((length) => Array.from({ length: Math.max(0, marked.length - length + 1) }, (_, i) => marked.slice(i, i + length)));
}

function addDirection(sum: Float64Array, row: Int8Array, weight: number): void {
  const length = Math.sqrt(row.reduce((squares, x) => squares + x * x, 0));
  if (length === 0) return;
  row.forEach((x, i) => {
    sum[i] = (sum[i] ?? 0) + (weight * x) / length;
  });
}

function scaled(values: Float64Array, length: number): Float64Array {
  const now = Math.sqrt(values.reduce((squares, x) => squares + x * x, 0));
  return now === 0 ? values : values.map((x) => (x * length) / now);
}

/** FNV-1a with murmur's last mix: without it, the low bits of short features are not even. */
function hash(text: string): number {
  let h = 2166136261;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
