/**
 * When a delivery is tried again: after 1 and 5 minutes, half an hour, 2 and 8 hours, and then three times a day later. Nine attempts in three
 * and a half days bring an event past a weekend; the first six in half a day are those that mostly do.
 */
const MINUTE_MS = 60_000;
const DELAYS_MS = [1, 5, 30, 120, 480, 1_440, 1_440, 1_440].map((minutes) => minutes * MINUTE_MS);
/** So that what failed together does not come back together. */
const JITTER = 0.2;
/** A receiver may ask for more time, up to a day. */
const MOST_ASKED_MS = 1_440 * MINUTE_MS;

export const MAX_TRIES = DELAYS_MS.length + 1;

/** @returns milliseconds until the next attempt after this many; null when that was the last. */
export function webhookDelayMs(tries: number, askedMs: number | null, random: () => number = Math.random): number | null {
  const delayMs = DELAYS_MS[tries - 1];
  if (delayMs === undefined) return null;
  const jittered = delayMs * (1 - JITTER + 2 * JITTER * random());
  return Math.round(Math.max(jittered, Math.min(askedMs ?? 0, MOST_ASKED_MS)));
}
