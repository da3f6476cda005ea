/** Written by `npm run calibrate -- --write` from the fit half of test/corpus; do not edit by hand. */
import type { RoutingThresholds } from "./decide.ts";

export const THRESHOLDS: Readonly<Record<string, RoutingThresholds>> = {
  "offline-hybrid-1": {
    measured: true,
    chainThreshold: 0.8,
    confidenceMin: 0.12,
    weights: { bias: 5.074, strength: 5.048, margin: 3.743, background: -0.646 },
  },
  "text-embedding-3-small": {
    measured: false,
    chainThreshold: 0.9,
    confidenceMin: 0.15,
    weights: { bias: 2.8, strength: 4, margin: 4, background: 3 },
  },
};
