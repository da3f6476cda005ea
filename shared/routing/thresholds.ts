/** Written by `npm run calibrate -- --write` from the fit half of test/corpus; do not edit by hand. */
import type { RoutingThresholds } from "./decide.ts";

export const THRESHOLDS: Readonly<Record<string, RoutingThresholds>> = {
  "offline-hybrid-1": { chainThreshold: 0.8, confidenceMin: 0.3, weights: { bias: 4.9, strength: 5, margin: 3.5, background: 1.3 } },
};
