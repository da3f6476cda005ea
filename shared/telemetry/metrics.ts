/** Counters and histograms of one process, under the names of SPEC 24.1. Money never comes from here. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** Every objective and its alert's threshold (0.1, 0.2, 0.4, 0.5, 5, 10, 30) is a bound: between two, a quantile is a guess. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

export type Metrics = ReturnType<typeof openMetrics>;

export function openMetrics() {
  const registry = new Registry();
  const registers = [registry];
  return {
    registry,
    collectProcess: () => collectDefaultMetrics({ register: registry }),
    requests: new Histogram({
      name: "aau_http_request_duration_seconds",
      help: "Requests by function and status",
      labelNames: ["function", "status"],
      buckets: SECONDS,
      registers,
    }),
    inFlight: new Gauge({ name: "aau_http_requests_in_flight", help: "Requests that run now", labelNames: ["function"], registers }),
    authLatency: new Histogram({ name: "aau_api_key_auth_latency_seconds", help: "Time to authenticate a key", labelNames: ["cache_hit"], buckets: SECONDS, registers }),
    rateLimitHits: new Counter({ name: "aau_rate_limit_hits_total", help: "Requests over the limit", labelNames: ["tenant_id"], registers }),
    routerConfidence: new Histogram({
      name: "aau_router_confidence",
      help: "Confidence of routing decisions",
      labelNames: ["method"],
      buckets: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99],
      registers,
    }),
    routerDuration: new Histogram({ name: "aau_router_duration_seconds", help: "Time to a routing decision", labelNames: ["method"], buckets: SECONDS, registers }),
    routerMethod: new Counter({ name: "aau_router_method_total", help: "Routing decisions by method", labelNames: ["method"], registers }),
    routerModelCalls: new Counter({
      name: "aau_router_model_calls_total",
      help: "Times a language model was asked to choose among plugins, by what came of it",
      labelNames: ["model", "outcome"],
      registers,
    }),
    routerModelTokens: new Counter({
      name: "aau_router_model_tokens_total",
      help: "Tokens of those calls; the platform pays them",
      labelNames: ["model", "direction"],
      registers,
    }),
    syncDelivery: new Histogram({
      name: "aau_sync_delivery_seconds",
      help: "From a submit that waits to the result; waits of ten seconds and more count also when they gave up",
      buckets: SECONDS,
      registers,
    }),
    executionDuration: new Histogram({
      name: "aau_plugin_execution_duration_seconds",
      help: "Duration of task executions",
      labelNames: ["plugin", "status"],
      buckets: SECONDS,
      registers,
    }),
    tokenUsage: new Counter({ name: "aau_plugin_token_usage_total", help: "Tokens that providers counted", labelNames: ["plugin", "model"], registers }),
    summaries: new Counter({ name: "aau_history_summaries_total", help: "Summaries of conversations by outcome", labelNames: ["outcome"], registers }),
    summaryTokens: new Counter({ name: "aau_history_summary_tokens_total", help: "Tokens of summaries; the platform pays for them", labelNames: ["model"], registers }),
    monthsNotClosed: new Counter({ name: "aau_billing_months_not_closed_total", help: "Months that could not be closed, by reason", labelNames: ["reason"], registers }),
    webhookAttempts: new Counter({ name: "aau_webhook_delivery_attempts_total", help: "Attempts to tell an endpoint, those that failed too", registers }),
    webhookFailures: new Counter({ name: "aau_webhook_delivery_failures_total", help: "Attempts to tell an endpoint that failed", labelNames: ["tenant_id"], registers }),
    budgetExceeded: new Counter({ name: "aau_plugin_budget_exceeded_total", help: "Executions over their token budget", labelNames: ["plugin"], registers }),
  };
}
