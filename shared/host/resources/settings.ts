import type { Opener, Settings } from "../resources.ts";

const NAMES = ["CHAIN_THRESHOLD", "CONFIDENCE_MIN", "PUBLIC_URL", "UPGRADE_URL", "FUNCTION_URL", "FUNCTION_URLS", "TASK_LEASE_MS", "MAX_CRASHES"] as const;

/** Settings that are not secret; secrets reach a function only through the resource that uses them. */
export const opener: Opener<Settings> = {
  variables: NAMES,
  open: ({ config }) => Object.freeze(Object.fromEntries(NAMES.map((name) => [name, config[name]]))) as Settings,
};
