import { setImmediate } from "node:timers/promises";

/** Lets the process answer others between two files (its `alive` lines too), and ends the work when the task was cancelled. */
export async function breathe(signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await setImmediate();
  signal.throwIfAborted();
}
