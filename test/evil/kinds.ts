/** The plugins that do wrong, one way each, and how a task that meets one has to end. */
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { Manifest } from "../../shared/sdk/src/manifest.ts";
import { type Pod, startPod } from "../support/pod.ts";

export interface EvilKind {
  kind: string;
  /** Of the failed task; null where the answer can be used, with what cannot be stored taken out. */
  error: { code: "PLUGIN_UNAVAILABLE" | "PLUGIN_TIMEOUT" | "INTERNAL"; message: RegExp } | null;
  /** The process ends by itself, and is started again. */
  dies?: true;
}

const invalid = (message: RegExp) => ({ code: "INTERNAL" as const, message });
const gone = { code: "PLUGIN_UNAVAILABLE" as const, message: /process ended/ };
const late = { code: "PLUGIN_TIMEOUT" as const, message: /did not finish within 2 seconds/ };

export const EVIL: readonly EvilKind[] = [
  { kind: "crash", error: gone, dies: true },
  { kind: "silent-exit", error: gone, dies: true },
  { kind: "out-of-memory", error: gone, dies: true },
  { kind: "hang", error: late },
  { kind: "busy-loop", error: late },
  { kind: "huge-output", error: invalid(/larger than 4194304 bytes/) },
  { kind: "million-lines", error: invalid(/too many events/) },
  { kind: "invalid-envelope", error: invalid(/does not fit the envelope 2\.0/) },
  { kind: "wrong-task", error: invalid(/answered for another task/) },
  { kind: "other-tenant", error: invalid(/answered for another task/) },
  { kind: "not-a-number", error: invalid(/not valid JSON/) },
  { kind: "infinity", error: invalid(/does not fit the envelope 2\.0 at envelope\.result\.confidence/) },
  { kind: "unknown-status", error: invalid(/does not fit the envelope 2\.0/) },
  { kind: "proto-keys", error: invalid(/key __proto__/) },
  { kind: "deep-json", error: invalid(/nested deeper/) },
  { kind: "gzip-bomb", error: invalid(/not valid JSON|larger than/) },
  { kind: "redirect", error: { code: "PLUGIN_UNAVAILABLE", message: /answered 307/ } },
  { kind: "nul", error: null },
  { kind: "lone-surrogate", error: null },
];

export const evilManifest = (kind: string): Manifest =>
  v.parse(Manifest, {
    name: `evil-${kind}`,
    version: "1.0.0",
    description: "Does wrong in one way, for tests.",
    capabilities: [`do wrong by ${kind}`],
    category: "testing",
    envelope_version: "2.0",
    estimated_latency: "medium",
    model: "none",
    timeout_seconds: 2,
    max_retries: 0,
  });

/** Memory is bounded, so that the one that takes it all takes little. */
export const startEvil = ({ kind, dies }: EvilKind): Promise<Pod> =>
  startPod({
    program: fileURLToPath(new URL("./evil-plugin.mjs", import.meta.url)),
    args: ["--max-old-space-size=64"],
    env: { EVIL: kind },
    restarts: dies === true,
    isPlain: true,
  });
