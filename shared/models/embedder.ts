/** What every embedding model looks like to the rest of the platform: text in, unit vectors of one width out. */

/** The width of every stored vector. Narrower models are padded with zeros, which keeps every cosine between their vectors. */
export const EMBEDDING_DIMENSIONS = 1536;

export interface Embedder {
  /** Stored beside every vector. Vectors of different models must never be compared. */
  readonly model: string;
  /** One unit vector of `EMBEDDING_DIMENSIONS` per text, in the order of the texts. A text without any content gives the zero vector. */
  embed(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
}

/** Pads to the stored width and scales to length 1; the zero vector stays zero. Throws RangeError for vectors that are too wide or not finite. */
export function toUnitVector(values: ArrayLike<number>): Float32Array {
  if (values.length > EMBEDDING_DIMENSIONS) {
    throw new RangeError(`an embedding of ${values.length} dimensions does not fit the ${EMBEDDING_DIMENSIONS} that are stored`);
  }
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] ?? 0) ** 2;
  if (!Number.isFinite(squares)) throw new RangeError("an embedding holds a value that is not a finite number");
  const unit = new Float32Array(EMBEDDING_DIMENSIONS);
  if (squares === 0) return unit;
  const scale = 1 / Math.sqrt(squares);
  for (let i = 0; i < values.length; i++) unit[i] = (values[i] ?? 0) * scale;
  return unit;
}
