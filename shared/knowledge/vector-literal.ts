/** A vector as PostgreSQL reads a `real[]`. Throws RangeError for what no index could hold. */
export function vectorLiteral(vector: Float32Array): string {
  if (!vector.every(Number.isFinite)) throw new RangeError("a vector holds a value that is not a finite number");
  return `{${vector.join(",")}}`;
}
