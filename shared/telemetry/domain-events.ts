/** What the platform tells of its work: one function an event writes the log line and moves the metric. Handlers never format either. */
import { publicId } from "../ids.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Spans } from "./spans.ts";
import { childOf } from "./trace.ts";

/** The alert on the objective for waits (SPEC 24.4). */
const OBJECTIVE_LOST_MS = 10_000;

export interface Telemetry {
  taskAdmitted(task: {
    taskId: string;
    tenantId: string;
    plugin: string;
    method: string;
    confidence: number | null /** Null where the caller decided. */;
    routingMs: number | null;
  }): void;
  /** A caller has waited for its task in the submit itself, and has the result or has given up. */
  submitWaited(waited: { ms: number; isDone: boolean }): void;
  /** A plugin was called and has answered, failed or been stopped. */
  stepFinished(step: { taskId: string; tenantId: string; plugin: string; step: string; status: string; durationMs: number; budgetExceeded: boolean }): void;
  /** One call of a plugin, as a span: `traceparent` is what the plugin was given. */
  pluginAnswered(call: { taskId: string; tenantId: string; plugin: string; step: string; traceparent: string; parent: string | null; durationMs: number; isError: boolean }): void;
  /** One node of a plugin's graph, as a span within the call. */
  nodeFinished(node: { plugin: string; node: string; parent: string; durationMs: number }): void;
  taskFinished(task: { taskId: string; tenantId: string; plugin: string; status: string; method: string; durationMs: number; attempt: number; errorCode: string | null }): void;
  taskLost(task: { taskId: string; tenantId: string; plugin: string; attempt: number }): void;
  taskHandedBack(task: { taskId: string; tenantId: string; plugin: string; attempt: number; reason: string }): void;
  modelCallFinished(call: {
    taskId: string;
    tenantId: string;
    plugin: string;
    node: string | null;
    model: string;
    tokens: number;
    durationMs: number;
    state: string;
    traceparent: string;
  }): void;
  /** Paid by the platform: such a call belongs to no task and is billed to nobody. */
  modelChoseRoute(call: { model: string; outcome: "chosen" | "none" | "no_answer"; inputTokens: number; outputTokens: number; durationMs: number }): void;
  /** The platform's own model call; its tokens are billed to nobody. */
  historySummarised(summary: { tenantId: string; model: string; tokens: number; turns: number; outcome: "written" | "outrun"; durationMs: number }): void;
  documentEmbedded(document: { documentId: string; tenantId: string; chunks: number; durationMs: number }): void;
  documentPutOff(document: { documentId: string; tenantId: string; attempt: number; isFinal: boolean; error: unknown }): void;
  /** A part that the work can do without did not answer. */
  degraded(part: string, error: unknown): void;
  /** The object store took a file that it had not taken when it was made. */
  artifactUploaded(attempt: number): void;
  /** One attempt to tell an endpoint. */
  webhookSent(attempt: {
    tenantId: string;
    webhookId: string;
    type: string;
    status: number | null;
    error: string | null;
    attempt: number;
    durationMs: number;
    isDisabled: boolean;
  }): void;
  erasureFinished(erasure: { erasureId: string; tenantId: string }): void;
  /** A part that an erasure needs is away; it goes on later. */
  erasurePutOff(erasure: { erasureId: string; tenantId: string; error: unknown }): void;
  retentionPurged(kind: string, count: number): void;
  wakeRang(count: number): void;
  questionsEnded(count: number): void;
  probeFound(plugin: string, status: string): void;
  pluginMoved(plugin: string, status: "sunset" | "retired", subscriptionsEnded: number): void;
  monthClosed(month: { tenantId: string; month: string; outcome: string }): void;
  /** `sums_disagree`: what settling has counted is not what the events say; somebody has to look before this month can be invoiced. */
  monthNotClosed(month: { tenantId: string; month: string; reason: "sums_disagree" | "error"; error: unknown }): void;
  invoiceAnnounced(invoice: { invoiceId: string; tenantId: string; attempt: number; error: unknown }): void;
}

export function openTelemetry(log: Log, metrics: Metrics, spans: Spans | null = null): Telemetry {
  const ids = (task: { taskId: string; tenantId: string; plugin: string }) => ({ task_id: publicId("task", task.taskId), tenant_id: task.tenantId, plugin_name: task.plugin });
  const documentIds = (document: { documentId: string; tenantId: string }) => ({ document_id: publicId("document", document.documentId), tenant_id: document.tenantId });
  const erasureIds = (erasure: { erasureId: string; tenantId: string }) => ({ erasure_id: publicId("erasure", erasure.erasureId), tenant_id: erasure.tenantId });
  return {
    taskAdmitted(task) {
      metrics.routerMethod.inc({ method: task.method });
      if (task.routingMs !== null) metrics.routerDuration.observe({ method: task.method }, task.routingMs / 1000);
      if (task.confidence !== null) metrics.routerConfidence.observe({ method: task.method }, task.confidence);
      log("debug", "task admitted", { ...ids(task), routing_method: task.method });
    },
    submitWaited({ ms, isDone }) {
      // Whoever gives up sooner has not learnt whether the platform is slow.
      if (isDone || ms >= OBJECTIVE_LOST_MS) metrics.syncDelivery.observe(ms / 1000);
    },
    stepFinished(step) {
      metrics.executionDuration.observe({ plugin: step.plugin, status: step.status }, step.durationMs / 1000);
      if (step.budgetExceeded) metrics.budgetExceeded.inc({ plugin: step.plugin });
      log("debug", "step finished", { ...ids(step), step: step.step, status: step.status, duration_ms: Math.round(step.durationMs) });
    },
    pluginAnswered({ taskId, tenantId, plugin, step, traceparent, parent, durationMs, isError }) {
      spans?.ended({
        name: `execute ${plugin}`,
        kind: "client",
        traceparent,
        parent,
        startedAtMs: Date.now() - durationMs,
        durationMs,
        attributes: { "aau.task_id": publicId("task", taskId), "aau.tenant_id": tenantId, "aau.plugin": plugin, "aau.step": step },
        isError,
      });
    },
    nodeFinished({ plugin, node, parent, durationMs }) {
      if (!spans) return;
      const attributes = { "aau.plugin": plugin, "aau.node": node };
      spans.ended({ name: `node ${node}`, kind: "internal", traceparent: childOf(parent), parent, startedAtMs: Date.now() - durationMs, durationMs, attributes, isError: false });
    },
    taskFinished(task) {
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
      spans?.ended({
        name: `chat ${call.model}`,
        kind: "client",
        traceparent: childOf(call.traceparent),
        parent: call.traceparent,
        startedAtMs: Date.now() - call.durationMs,
        durationMs: call.durationMs,
        attributes: {
          "gen_ai.operation.name": "chat",
          "gen_ai.response.model": call.model,
          "gen_ai.usage.total_tokens": call.tokens,
          "aau.task_id": publicId("task", call.taskId),
          "aau.plugin": call.plugin,
          "aau.state": call.state,
        },
        isError: call.state !== "done",
      });
    },
    modelChoseRoute({ model, outcome, inputTokens, outputTokens, durationMs }) {
      metrics.routerModelCalls.inc({ model, outcome });
      metrics.routerModelTokens.inc({ model, direction: "input" }, inputTokens);
      metrics.routerModelTokens.inc({ model, direction: "output" }, outputTokens);
      log("info", "model chose a route", { status: outcome, tokens_used: inputTokens + outputTokens, duration_ms: Math.round(durationMs) });
    },
    historySummarised(summary) {
      metrics.summaries.inc({ outcome: summary.outcome });
      if (summary.tokens > 0) metrics.summaryTokens.inc({ model: summary.model }, summary.tokens);
      log("info", "history summarised", {
        tenant_id: summary.tenantId,
        status: summary.outcome,
        count: summary.turns,
        tokens_used: summary.tokens,
        duration_ms: Math.round(summary.durationMs),
      });
    },
    documentEmbedded: (document) => log("info", "document embedded", { ...documentIds(document), count: document.chunks, duration_ms: Math.round(document.durationMs) }),
    documentPutOff: (document) =>
      log(document.isFinal ? "error" : "warn", document.isFinal ? "document failed" : "document put off", {
        ...documentIds(document),
        attempt: document.attempt,
        error: document.error,
      }),
    degraded: (part, error) => log("warn", "working without a part", { reason: part, error }),
    artifactUploaded: (attempt) => log("info", "waiting artifact uploaded", { attempt }),
    webhookSent(sent) {
      metrics.webhookAttempts.inc();
      if (sent.error !== null) metrics.webhookFailures.inc({ tenant_id: sent.tenantId });
      log(sent.isDisabled ? "warn" : sent.error === null ? "debug" : "info", sent.isDisabled ? "webhook disabled" : "webhook sent", {
        webhook_id: publicId("webhook", sent.webhookId),
        tenant_id: sent.tenantId,
        status: sent.status ?? "none",
        attempt: sent.attempt,
        duration_ms: sent.durationMs,
        ...(sent.error === null ? {} : { reason: sent.error }),
      });
    },
    erasureFinished: (erasure) => log("info", "erasure finished", erasureIds(erasure)),
    erasurePutOff: (erasure) => log("warn", "erasure put off", { ...erasureIds(erasure), error: erasure.error }),
    retentionPurged: (kind, count) => count > 0 && log("info", "retention purged", { reason: kind, count }),
    wakeRang: (count) => log(count > 0 ? "info" : "debug", "wake rang", { count }),
    questionsEnded: (count) => count > 0 && log("info", "questions ended without an answer", { count }),
    pluginMoved: (plugin, status, subscriptionsEnded) => log("info", "plugin moved on", { plugin_name: plugin, status, count: subscriptionsEnded }),
    monthClosed: ({ tenantId, month, outcome }) => log(outcome === "closed" ? "info" : "debug", "month closed", { tenant_id: tenantId, reason: month, status: outcome }),
    monthNotClosed({ tenantId, month, reason, error }) {
      metrics.monthsNotClosed.inc({ reason });
      log("error", "month not closed", { tenant_id: tenantId, reason: `${month} ${reason}`, error });
    },
    invoiceAnnounced: ({ invoiceId, tenantId, attempt, error }) =>
      log(error ? "warn" : "info", error ? "invoice not announced" : "invoice announced", {
        invoice_id: publicId("invoice", invoiceId),
        tenant_id: tenantId,
        attempt,
        ...(error ? { error } : {}),
      }),
    probeFound: (plugin, status) => log(status === "healthy" ? "debug" : "warn", "plugin probed", { plugin_name: plugin, status }),
  };
}
