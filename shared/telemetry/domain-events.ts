/** What the platform tells of its work: one function an event writes the log line and moves the metric. Handlers never format either. */
import { publicId } from "../ids.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";

export interface Telemetry {
  taskAdmitted(task: { taskId: string; tenantId: string; plugin: string; method: string; confidence: number | null }): void;
  taskFinished(task: {
    taskId: string;
    tenantId: string;
    plugin: string;
    status: string;
    method: string;
    durationMs: number;
    attempt: number;
    errorCode: string | null;
    budgetExceeded: boolean;
  }): void;
  taskLost(task: { taskId: string; tenantId: string; plugin: string; attempt: number }): void;
  taskHandedBack(task: { taskId: string; tenantId: string; plugin: string; attempt: number; reason: string }): void;
  modelCallFinished(call: { taskId: string; tenantId: string; plugin: string; node: string | null; model: string; tokens: number; durationMs: number; state: string }): void;
  /** A part that the work can do without did not answer. */
  degraded(part: string, error: unknown): void;
  circuitSeen(circuit: { plugin: string; version: string; state: "closed" | "half_open" | "open" }): void;
  /** The object store took a file that it had not taken when it was made. */
  artifactUploaded(attempt: number): void;
  wakeRang(count: number): void;
  probeFound(plugin: string, status: string): void;
}

const CIRCUIT_LEVEL = { closed: 0, half_open: 1, open: 2 } as const;

export function openTelemetry(log: Log, metrics: Metrics): Telemetry {
  const ids = (task: { taskId: string; tenantId: string; plugin: string }) => ({ task_id: publicId("task", task.taskId), tenant_id: task.tenantId, plugin_name: task.plugin });
  return {
    taskAdmitted(task) {
      metrics.routerMethod.inc({ method: task.method });
      if (task.confidence !== null) metrics.routerConfidence.observe({ method: task.method }, task.confidence);
      log("debug", "task admitted", { ...ids(task), routing_method: task.method });
    },
    taskFinished(task) {
      metrics.executionDuration.observe({ plugin: task.plugin, status: task.status }, task.durationMs / 1000);
      if (task.budgetExceeded) metrics.budgetExceeded.inc({ plugin: task.plugin });
      log("info", "task finished", {
        ...ids(task),
        status: task.status,
        routing_method: task.method,
        duration_ms: Math.round(task.durationMs),
        attempt: task.attempt,
        ...(task.errorCode ? { error_code: task.errorCode } : {}),
      });
    },
    taskLost: (task) => log("warn", "task lost to another executor", { ...ids(task), attempt: task.attempt }),
    taskHandedBack: (task) => log("warn", "task handed back", { ...ids(task), attempt: task.attempt, reason: task.reason }),
    modelCallFinished(call) {
      if (call.tokens > 0) metrics.tokenUsage.inc({ plugin: call.plugin, model: call.model }, call.tokens);
      log("info", "model call finished", {
        ...ids(call),
        ...(call.node ? { node: call.node } : {}),
        status: call.state,
        tokens_used: call.tokens,
        duration_ms: Math.round(call.durationMs),
      });
    },
    degraded: (part, error) => log("warn", "working without a part", { reason: part, error }),
    circuitSeen: ({ plugin, version, state }) => metrics.circuitState.set({ plugin, version }, CIRCUIT_LEVEL[state]),
    artifactUploaded: (attempt) => log("info", "waiting artifact uploaded", { attempt }),
    wakeRang: (count) => log(count > 0 ? "info" : "debug", "wake rang", { count }),
    probeFound: (plugin, status) => log(status === "healthy" ? "debug" : "warn", "plugin probed", { plugin_name: plugin, status }),
  };
}
