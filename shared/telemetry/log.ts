/**
 * JSON lines on stdout with the fields of SPEC 24.3. Only the fields named here leave the process: a log line is built from
 * an allow-list, so that a command, a key or a result cannot slip in with an object that somebody logged whole.
 */
import { type DestinationStream, pino } from "pino";

export interface LogFields {
  service?: string;
  task_id?: string;
  document_id?: string;
  invoice_id?: string;
  webhook_id?: string;
  erasure_id?: string;
  tenant_id?: string;
  plugin_name?: string;
  node?: string;
  step?: string;
  routing_method?: string;
  duration_ms?: number;
  tokens_used?: number;
  request_id?: string;
  trace_id?: string;
  event_id?: string;
  function_name?: string;
  method?: string;
  /** The route's pattern, never the path. */
  route?: string;
  status?: number | string;
  error_code?: string;
  attempt?: number;
  count?: number;
  cache_hit?: boolean;
  stream?: string;
  reason?: string;
  error?: unknown;
}

export type Level = "debug" | "info" | "warn" | "error" | "fatal";
export type Log = (level: Level, message: string, fields?: LogFields) => void;

const NULL_FIELDS = { task_id: null, tenant_id: null, plugin_name: null, node: null, routing_method: null, duration_ms: null, tokens_used: null };

export interface LogOptions {
  service: string;
  level: string;
  destination?: DestinationStream;
}

/** Lines are written together: one system call a line costs more than the line. A process that is killed loses this much at most. */
const FLUSH_MS = 100;
const FLUSH_BYTES = 8_192;

function bufferedStdout() {
  const stdout = pino.destination({ dest: 1, sync: false, minLength: FLUSH_BYTES, periodicFlush: FLUSH_MS });
  process.once("exit", () => {
    try {
      stdout.flushSync();
    } catch {
      // Nobody reads any more.
    }
  });
  return stdout;
}

export function openLog({ service, level, destination }: LogOptions): Log {
  const sink = destination ?? bufferedStdout();
  const logger = pino(
    {
      level,
      base: undefined,
      messageKey: "message",
      timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink,
  );
  return (severity, message, { error, ...fields } = {}) => {
    logger[severity]({ service, ...NULL_FIELDS, ...fields, ...(error === undefined ? {} : { error: describeError(error) }) }, message);
  };
}

/**
 * What a log may say of an error: its kind, its code, where it was thrown, and its causes. Messages of foreign errors may quote
 * input (a parser's, a database's), so only our own and the language's are kept.
 */
export function describeError(error: unknown, depth = 0): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const code = "code" in error && (typeof error.code === "string" || typeof error.code === "number") ? error.code : undefined;
  const isOurs = error.name === "Refusal" || error.name === "ConfigError" || error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError;
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  return {
    type: error.name,
    ...(code === undefined ? {} : { code }),
    ...(isOurs ? { message: error.message.slice(0, 300) } : {}),
    ...(depth === 0 || !isOurs ? { stack: frames.slice(0, 6).map((line) => line.trim()) } : {}),
    ...(error.cause === undefined || depth > 2 ? {} : { cause: describeError(error.cause, depth + 1) }),
  };
}
