/** Sliding windows of one process, for the time that Redis is away. Each instance counts alone, so the limit is per instance then. */
import type { RateState } from "./admission.ts";

const MAX_KEYS = 10_000;

export function localWindows(windowMs: number, now: () => number = () => performance.now()) {
  const times = new Map<string, number[]>();
  return {
    take(key: string, limit: number): RateState {
      const at = now();
      const recent = (times.get(key) ?? []).filter((t) => t > at - windowMs);
      const resetMs = Math.ceil((recent[0] ?? at) + windowMs - at);
      if (recent.length >= limit) {
        times.set(key, recent);
        return { admitted: false, limit, remaining: 0, resetMs };
      }
      recent.push(at);
      if (times.size >= MAX_KEYS && !times.has(key)) times.clear();
      times.set(key, recent);
      return { admitted: true, limit, remaining: limit - recent.length, resetMs };
    },
  };
}
