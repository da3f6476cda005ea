/** The life of one deployed function: read the settings, open what it needs, listen, and on SIGTERM finish what is in flight. */
import { openDoorkeeper } from "../access/admission.ts";
import { openTelemetry } from "../telemetry/domain-events.ts";
import { type LogOptions, openLog } from "../telemetry/log.ts";
import { openMetrics } from "../telemetry/metrics.ts";
import type { Spans } from "../telemetry/spans.ts";
import { functionApp } from "./app.ts";
import { type Config, readConfig } from "./config.ts";
import type { AnyFunction } from "./declare.ts";
import { installFailpoints } from "./install-failpoints.ts";
import { type Listening, listen } from "./listen.ts";
import { allNeeds } from "./needs.ts";
import { type Openers, openResources, type ResourceName, type Resources } from "./resources.ts";
import type { Runtime } from "./runtime.ts";

export interface Serving {
  port: number;
  runtime: Runtime;
  stop(): Promise<void>;
}

/** For work that was cut off at the end of the drain to write down that it was. */
const LAST_WORDS_MS = 2_000;
/** The share of the drain time after which work that does not end is given back to the queue. */
const HAND_BACK_AFTER = 0.6;

/** Opens a runtime for these functions. */
export async function openRuntime(functions: readonly AnyFunction[], openers: Partial<Openers>, config: Config, service: string, logTo?: LogOptions["destination"]) {
  const needs = [...new Set(functions.flatMap(allNeeds))];
  for (const need of needs) if (!openers[need]) throw new Error(`${service} needs ${need}, and no opener was given`);
  const log = openLog({ service, level: config.LOG_LEVEL, destination: logTo });
  const metrics = openMetrics();
  const spans = await openSpans(config, service);
  const { resources, close } = await openResources(openers as Openers, needs as ResourceName[], config, openTelemetry(log, metrics, spans));
  const drain = new AbortController();
  const stopping = new AbortController();
  let inFlight = 0;
  let idle: (() => void) | undefined;
  const open: Partial<Resources> = resources;
  const runtime: Runtime = {
    config,
    log,
    metrics,
    spans,
    resources: open,
    doorkeeper: open.redis && open.db ? openDoorkeeper(open.redis, open.db) : null,
    capabilities: open.capabilities ?? null,
    draining: drain.signal,
    stopping: stopping.signal,
    requestStarted() {
      inFlight += 1;
    },
    requestFinished() {
      inFlight -= 1;
      if (inFlight === 0) idle?.();
    },
  };
  return {
    runtime,
    async stop(listening: Listening[]) {
      drain.abort();
      const handBack = setTimeout(() => stopping.abort(new Error("the instance is stopping")), config.DRAIN_MS * HAND_BACK_AFTER);
      const quiet = (ms: number) =>
        Promise.race([
          new Promise<void>((resolve) => {
            if (inFlight === 0) resolve();
            else idle = resolve;
          }),
          new Promise((resolve) => setTimeout(resolve, ms).unref()),
        ]);
      await Promise.all([...listening.map((l) => l.close(config.DRAIN_MS)), quiet(config.DRAIN_MS)]);
      // What was cut off still writes down how it ended; the database stays open for that.
      await quiet(LAST_WORDS_MS);
      clearTimeout(handBack);
      await close();
      await spans?.close();
    },
  };
}

/** The exporter is only loaded where it is used: it would cost every cold start. */
export async function openSpans(config: Config, service: string): Promise<Spans | null> {
  const endpoint = config.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!endpoint) return null;
  const otlp = await import("../telemetry/otlp-spans.ts");
  return otlp.openSpans({ endpoint, headers: config.OTEL_EXPORTER_OTLP_HEADERS, ratio: config.OTEL_TRACES_SAMPLER_ARG, service });
}

/** What a bundle runs. Resolves when the function listens; the process ends by itself after SIGTERM. */
export async function serveFunction(fn: AnyFunction, openers: Partial<Openers>): Promise<void> {
  const log = openLog({ service: fn.name, level: "info" });
  FAILPOINT: installFailpoints(process.env.AAU_FP);
  try {
    const config = readConfig(process.env);
    const { runtime, stop } = await openRuntime([fn], openers, config, fn.name);
    runtime.metrics.collectProcess();
    const listening = await listen(functionApp([fn], runtime).fetch, { port: config.PORT });
    runtime.log("info", "function listens", { count: listening.port });
    endOnSignals(async () => {
      await stop([listening]);
      runtime.log("info", "function stopped");
    });
  } catch (error) {
    log("fatal", error instanceof Error && error.name === "ConfigError" ? error.message : "function could not start", { error });
    process.exitCode = 1;
  }
}

/** Runs the stop once, on the first SIGTERM or SIGINT. */
export function endOnSignals(stop: () => Promise<void>): void {
  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      stop().then(
        () => process.exit(0),
        () => process.exit(1),
      );
    });
  }
}
