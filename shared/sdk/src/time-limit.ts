/**
 * As `AbortSignal.timeout`, and safe to give to `AbortSignal.any`. In Node 20 a time-out that only `any` knows is collected as garbage, and then
 * its time never comes: whoever waits with that signal waits for ever. A listener keeps it until it has fired.
 *
 * @param ms up to 2^32 - 1; it does not keep the process alive
 */
export function timeLimit(ms: number): AbortSignal {
  const limit = AbortSignal.timeout(ms);
  limit.addEventListener("abort", () => {}, { once: true });
  return limit;
}

/** A limit that can be let go of: where many are made and most are long, those that are not needed any more must not wait for their time. */
export function openTimeLimit(ms: number): { signal: AbortSignal; close(): void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")), ms);
  timer.unref();
  return { signal: controller.signal, close: () => clearTimeout(timer) };
}
