/** Written by `npm run calibrate -- --write` from the fit half of test/corpus; do not edit by hand. */
import type { RoutingThresholds } from "./decide.ts";

export const THRESHOLDS: Readonly<Record<string, RoutingThresholds>> = {
  "offline-hybrid-1": { measured: true, chainThreshold: 0.92, confidenceMin: 0.12, weights: { bias: 5.068, strength: 5.041, margin: 3.738, background: -0.642 } },
  "text-embedding-3-small": { measured: false, chainThreshold: 0.9, confidenceMin: 0.15, weights: { bias: 2.8, strength: 4, margin: 4, background: 3 } },
};
