/** W3C trace context: one trace from the gateway through the stream to the model call. */
import { randomHex } from "../ids.ts";

const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The caller's traceparent when it is well formed. */
export function parentOf(header: string | null | undefined): string | null {
  return header && TRACEPARENT.test(header) ? header : null;
}

/** The caller's traceparent when it is well formed, else a new one. */
export function traceparentOf(header: string | null | undefined): string {
  return parentOf(header) ?? `00-${randomHex()}-${randomHex().slice(0, 16)}-01`;
}

/** The same trace, with a new span as the parent of what follows. */
export function childOf(traceparent: string): string {
  return `${traceparent.slice(0, 36)}${randomHex().slice(0, 16)}${traceparent.slice(52)}`;
}

export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}
