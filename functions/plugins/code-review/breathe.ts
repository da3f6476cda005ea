import { setImmediate } from "node:timers/promises";

/** Long enough to get work done, short enough that nobody waits: `alive` lines, other tasks, a cancel. */
const SPELL_MS = 25;

/**
 * Makes a function to be awaited between two pieces of work. It lets the process answer others when a spell is over, and
 * ends the work when the task was cancelled.
 */
export function breather(signal: AbortSignal): () => Promise<void> {
  let since = performance.now();
  return async () => {
    signal.throwIfAborted();
    if (performance.now() - since < SPELL_MS) return;
    await setImmediate();
    since = performance.now();
    signal.throwIfAborted();
  };
}
