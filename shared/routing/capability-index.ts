/** The capability sentences of a catalogue as one flat matrix, and the score of each plugin for a command. */
import { EMBEDDING_DIMENSIONS } from "../models/embedder.ts";

export interface IndexedPlugin {
  readonly plugin: string;
  /** One capability sentence each; only their vectors are read here. */
  readonly texts: readonly string[];
  readonly vectors: readonly Float32Array[];
}

export interface CapabilityIndex {
  readonly model: string;
  readonly plugins: readonly string[];
  /** Plugin `i` owns the rows `starts[i]` up to `starts[i + 1]`. */
  readonly starts: Uint32Array;
  readonly rows: Float32Array;
  readonly background: Float32Array;
}

export interface PluginScore {
  readonly plugin: string;
  readonly score: number;
}

export interface CommandScores {
  /** Best first; equal scores in the order of the names, so that a decision never depends on the order of registration. */
  readonly plugins: readonly PluginScore[];
  /** How near the command is to sentences that no plugin answers: the rival of last resort. */
  readonly background: number;
}

/** `background` holds the vectors of `BACKGROUND_SENTENCES` (background.ts), made by the same model. */
export function buildCapabilityIndex(model: string, plugins: readonly IndexedPlugin[], background: readonly Float32Array[]): CapabilityIndex {
  const ordered = plugins.filter((p) => p.vectors.length > 0).sort((a, b) => (a.plugin < b.plugin ? -1 : 1));
  const starts = new Uint32Array(ordered.length + 1);
  ordered.forEach((p, i) => {
    starts[i + 1] = (starts[i] ?? 0) + p.vectors.length;
  });
  return {
    model,
    plugins: ordered.map((p) => p.plugin),
    starts,
    rows: flatten(ordered.flatMap((p) => p.vectors)),
    background: flatten(background),
  };
}

/**
 * Sorted, best first. At most one multiplication a stored number; the zeros of the command cost nothing. A plugin that is not among the
 * `visible` ones is not there: it is nobody's rival either. Null: all are.
 */
export function scoreCommand(index: CapabilityIndex, vector: Float32Array, visible: ReadonlySet<string> | null = null): CommandScores {
  if (vector.length !== EMBEDDING_DIMENSIONS) throw new RangeError(`a command vector has ${vector.length} dimensions instead of ${EMBEDDING_DIMENSIONS}`);
  const query = withoutZeros(vector);
  const plugins: PluginScore[] = [];
  for (const [i, plugin] of index.plugins.entries()) {
    if (visible?.has(plugin) === false) continue;
    plugins.push({ plugin, score: likeness(index.rows, index.starts[i] ?? 0, index.starts[i + 1] ?? 0, query) });
  }
  plugins.sort((a, b) => b.score - a.score);
  return { plugins, background: likeness(index.background, 0, index.background.length / EMBEDDING_DIMENSIONS, query) };
}

function flatten(vectors: readonly Float32Array[]): Float32Array {
  const rows = new Float32Array(vectors.length * EMBEDDING_DIMENSIONS);
  vectors.forEach((vector, i) => {
    if (vector.length !== EMBEDDING_DIMENSIONS) throw new RangeError(`a capability vector has ${vector.length} dimensions instead of ${EMBEDDING_DIMENSIONS}`);
    rows.set(vector, i * EMBEDDING_DIMENSIONS);
  });
  return rows;
}

interface Query {
  readonly vector: Float32Array;
  readonly places: Uint16Array;
  readonly values: Float32Array;
}

/** The offline model fills about a tenth of its dimensions, and only those need to be multiplied. */
function withoutZeros(vector: Float32Array): Query {
  const places = Uint16Array.from(vector.keys()).filter((place) => vector[place] !== 0);
  return { vector, places, values: Float32Array.from(places, (place) => vector[place] ?? 0) };
}

/** Above this many values that are not zero, reading straight on is faster than hopping. */
const DENSE = EMBEDDING_DIMENSIONS / 2;

function sparseProduct(rows: Float32Array, start: number, places: Uint16Array, values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < places.length; i++) sum += (rows[start + (places[i] ?? 0)] ?? 0) * (values[i] ?? 0);
  return sum;
}

/** Four sums side by side, since one sum makes every addition wait for the one before. */
function denseProduct(rows: Float32Array, start: number, vector: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let i = 0; i < EMBEDDING_DIMENSIONS; i += 4) {
    a += (rows[start + i] ?? 0) * (vector[i] ?? 0);
    b += (rows[start + i + 1] ?? 0) * (vector[i + 1] ?? 0);
    c += (rows[start + i + 2] ?? 0) * (vector[i + 2] ?? 0);
    d += (rows[start + i + 3] ?? 0) * (vector[i + 3] ?? 0);
  }
  return a + b + c + d;
}

/** Three parts the best sentence, one part the second: one lucky sentence wins less often than by the best alone, and a mean over all would blur. */
function likeness(rows: Float32Array, from: number, to: number, { vector, places, values }: Query): number {
  let best = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let row = from; row < to; row++) {
    const start = row * EMBEDDING_DIMENSIONS;
    const cosine = places.length > DENSE ? denseProduct(rows, start, vector) : sparseProduct(rows, start, places, values);
    if (cosine > best) {
      second = best;
      best = cosine;
    } else if (cosine > second) second = cosine;
  }
  if (to === from) return 0;
  return to - from === 1 ? best : (3 * best + second) / 4;
}
