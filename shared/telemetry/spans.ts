/**
 * Spans of one trace, from the gateway through the stream and the bridge to the plugin and the model call. Their ids are those of the
 * W3C traceparents that travel with the work anyway, so a span need not be open while work runs: it is told when it has ended.
 */

export interface EndedSpan {
  /** Low in variety: a route, a function, a model; never an id. */
  name: string;
  kind: "server" | "client" | "producer" | "consumer" | "internal";
  /** This span's own context. */
  traceparent: string;
  /** The context that it happened in; none for a trace's first span. */
  parent: string | null;
  /** Milliseconds since the epoch. */
  startedAtMs: number;
  durationMs: number;
  /** Names of OpenTelemetry's semantic conventions where there are any. Never content, keys or addresses. */
  attributes: Record<string, string | number | boolean>;
  isError: boolean;
}

export interface Spans {
  ended(span: EndedSpan): void;
  /** Sends what is left, within a few seconds. */
  close(): Promise<void>;
}

export interface SpanSettings {
  /** The collector's base URL; `/v1/traces` is added. */
  endpoint: string;
  /** `name=value,name=value`, values percent-encoded. */
  headers: string | undefined;
  /** The share of traces that is kept, by their ids: all processes keep the same ones. */
  ratio: number;
  service: string;
}
