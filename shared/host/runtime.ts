/** What one process has open while it serves its functions. */
import type { Doorkeeper } from "../access/admission.ts";
import type { CapabilitySigner } from "../access/capability-token.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Spans } from "../telemetry/spans.ts";
import type { Config } from "./config.ts";
import type { Resources } from "./resources.ts";

export interface Runtime {
  config: Config;
  log: Log;
  metrics: Metrics;
  /** Null where no collector is set. */
  spans: Spans | null;
  /** Only those that the functions of this process need. */
  resources: Partial<Resources>;
  /** Present when a function of this process asks for a key. */
  doorkeeper: Doorkeeper | null;
  capabilities: CapabilitySigner | null;
  /** Aborted when the process is asked to stop. */
  draining: AbortSignal;
  /** Aborted when what still runs must be given back. */
  stopping: AbortSignal;
  requestStarted(): void;
  requestFinished(): void;
}
