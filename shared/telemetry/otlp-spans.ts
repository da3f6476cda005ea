/**
 * Sends spans to an OpenTelemetry collector (OTLP over HTTP, JSON). The library batches, encodes, retries and drops what a dead collector
 * cannot take; it is only loaded where an endpoint is set. Its tracer is not used: it would choose the span ids, and ours travel already.
 */
import { SpanKind, SpanStatusCode, TraceFlags } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, type ReadableSpan } from "@opentelemetry/sdk-trace";
import type { EndedSpan, SpanSettings, Spans } from "./spans.ts";

const KIND = { server: SpanKind.SERVER, client: SpanKind.CLIENT, producer: SpanKind.PRODUCER, consumer: SpanKind.CONSUMER, internal: SpanKind.INTERNAL } as const;
const SEND_TIMEOUT_MS = 5_000;
const LIMITS = { maxQueueSize: 4_096, maxExportBatchSize: 512, scheduledDelayMillis: 2_000, exportTimeoutMillis: SEND_TIMEOUT_MS };

export function openSpans({ endpoint, headers, ratio, service }: SpanSettings): Spans {
  const url = `${endpoint.replace(/\/+$/, "")}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, headers: readHeaders(headers), timeoutMillis: SEND_TIMEOUT_MS });
  const processor = new BatchSpanProcessor({ exporter, ...LIMITS });
  const resource = resourceFromAttributes({ "service.name": service, "service.namespace": "aau" });
  return {
    ended(span) {
      if (isKept(span.traceparent, ratio)) processor.onEnd(readable(span, resource));
    },
    close: () => processor.shutdown().catch(() => {}),
  };
}

/** By the trace's id, as the other processes decide too; the caller's own decision not to sample is kept. */
function isKept(traceparent: string, ratio: number): boolean {
  if ((Number.parseInt(traceparent.slice(53, 55), 16) & TraceFlags.SAMPLED) === 0) return false;
  return Number.parseInt(traceparent.slice(27, 35), 16) < ratio * 2 ** 32;
}

function contextOf(traceparent: string) {
  return { traceId: traceparent.slice(3, 35), spanId: traceparent.slice(36, 52), traceFlags: TraceFlags.SAMPLED };
}

function readable(span: EndedSpan, resource: ReadableSpan["resource"]): ReadableSpan {
  const context = contextOf(span.traceparent);
  return {
    name: span.name,
    kind: KIND[span.kind],
    spanContext: () => context,
    ...(span.parent && { parentSpanContext: contextOf(span.parent) }),
    startTime: hrTime(span.startedAtMs),
    endTime: hrTime(span.startedAtMs + span.durationMs),
    duration: hrTime(span.durationMs),
    status: { code: span.isError ? SpanStatusCode.ERROR : SpanStatusCode.UNSET },
    attributes: span.attributes,
    links: [],
    events: [],
    ended: true,
    resource,
    instrumentationScope: { name: "aau" },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** Seconds and nanoseconds. */
function hrTime(ms: number): [number, number] {
  const seconds = Math.trunc(ms / 1_000);
  return [seconds, Math.round((ms - seconds * 1_000) * 1_000_000)];
}

function readHeaders(text: string | undefined): Record<string, string> {
  return Object.fromEntries(
    (text ?? "").split(",").flatMap((pair) => {
      const at = pair.indexOf("=");
      return at > 0 ? [[pair.slice(0, at).trim(), decodeURIComponent(pair.slice(at + 1).trim())]] : [];
    }),
  );
}
