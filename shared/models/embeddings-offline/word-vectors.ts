/**
 * The binary file of word vectors. Layout: "AAUWV1\n\0", then three little-endian uint32 (words, dimensions, bytes of the word list), the words
 * in the order of their frequency joined by newlines in UTF-8, then one int8 row a word. Only the direction of a row has meaning.
 */
const MAGIC = "AAUWV1\n\0";
const HEADER_BYTES = MAGIC.length + 12;

export interface WordVectors {
  readonly dimensions: number;
  /** The place of each word: 0 is the commonest, and row `rank` of `rows` is its vector. */
  readonly ranks: ReadonlyMap<string, number>;
  readonly rows: Int8Array;
}

/** Throws when the file is not what `make-word-vectors` writes, or was cut short. */
export function decodeWordVectors(file: Uint8Array): WordVectors {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < HEADER_BYTES || new TextDecoder().decode(file.subarray(0, MAGIC.length)) !== MAGIC) throw new Error("this is not a file of word vectors");
  const count = view.getUint32(MAGIC.length, true);
  const dimensions = view.getUint32(MAGIC.length + 4, true);
  const listBytes = view.getUint32(MAGIC.length + 8, true);
  const rowsFrom = HEADER_BYTES + listBytes;
  if (file.length !== rowsFrom + count * dimensions) throw new Error(`the file of word vectors has ${file.length} bytes instead of ${rowsFrom + count * dimensions}`);
  const words = new TextDecoder().decode(file.subarray(HEADER_BYTES, rowsFrom)).split("\n");
  if (words.length !== count) throw new Error(`the file of word vectors names ${words.length} words instead of ${count}`);
  return {
    dimensions,
    ranks: new Map(words.map((word, rank) => [word, rank])),
    rows: new Int8Array(file.buffer, file.byteOffset + rowsFrom, count * dimensions),
  };
}

/** `vectors` in the order of the words; each is scaled so that its largest part is 127. */
export function encodeWordVectors(words: readonly string[], vectors: readonly ArrayLike<number>[]): Uint8Array {
  const dimensions = vectors[0]?.length ?? 0;
  const list = new TextEncoder().encode(words.join("\n"));
  const file = new Uint8Array(HEADER_BYTES + list.length + words.length * dimensions);
  file.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(file.buffer);
  [words.length, dimensions, list.length].forEach((n, i) => {
    view.setUint32(MAGIC.length + 4 * i, n, true);
  });
  file.set(list, HEADER_BYTES);
  const rows = new Int8Array(file.buffer, HEADER_BYTES + list.length);
  vectors.forEach((vector, word) => {
    const values = Array.from(vector);
    const largest = values.reduce((max, x) => Math.max(max, Math.abs(x)), 0) || 1;
    rows.set(
      values.map((x) => Math.round((x / largest) * 127)),
      word * dimensions,
    );
  });
  return file;
}
