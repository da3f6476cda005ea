/** Full jitter: a random time up to an exponentially growing bound, so that many that failed together do not come back together. */
export function fullJitterMs(attempt: number, { baseMs, capMs }: { baseMs: number; capMs: number }, random: () => number = Math.random): number {
  return Math.floor(random() * Math.min(capMs, baseMs * 2 ** (attempt - 1)));
}
