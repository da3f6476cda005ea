/** Calls a plugin's service and reads its answer line by line. Every failure comes back as what it means for the task. */
import { Agent, request } from "undici";
import * as v from "valibot";
import { type EnvelopeVersion, inputTo2, majorOf, outputTo1 } from "../sdk/src/envelope-versions.ts";
import { ExecutionEvent, executionEvent, type InputEnvelope, MAX_OUTPUT_BYTES } from "../sdk/src/envelopes.ts";
import { OutputEnvelope2 } from "../sdk/src/envelopes-2.ts";
import { troubleInData } from "./untrusted-data.ts";

export class PluginFailure extends Error {
  override readonly name = "PluginFailure";
  readonly code: "PLUGIN_UNAVAILABLE" | "PLUGIN_TIMEOUT" | "INTERNAL" | "INVALID_INPUT";
  readonly blame: "caller" | "plugin" | "upstream" | "platform";
  /** Whether another try may help. */
  readonly isTransient: boolean;
  /** The plugin has not begun with the task: nothing was tried, so that waiting costs nothing. */
  readonly isUnreached: boolean;
  /** The plugin's process ended, or its connection broke, with this execution in it. */
  readonly isCutOff: boolean;
  /** How long the plugin's service asks to wait. It refused in good order, which says nothing against it. */
  readonly retryAfterMs: number | null;
  constructor(
    code: PluginFailure["code"],
    message: string,
    blame: PluginFailure["blame"],
    isTransient: boolean,
    more: { cause?: unknown; isUnreached?: boolean; isCutOff?: boolean; retryAfterMs?: number | null } = {},
  ) {
    super(message, { cause: more.cause });
    this.code = code;
    this.blame = blame;
    this.isTransient = isTransient;
    this.isUnreached = more.isUnreached ?? false;
    this.isCutOff = more.isCutOff ?? false;
    this.retryAfterMs = more.retryAfterMs ?? null;
  }
}

export interface PluginCall {
  endpoint: string;
  input: InputEnvelope;
  /** What travels; the input and the events are always in the platform's own form. */
  envelopeVersion: EnvelopeVersion;
  llmToken: string;
  scopedToken: string;
  /** Only for plugins that may have others do a part of their work. */
  chainToken: string | null;
  hasModel: boolean;
  timeLeftMs: number;
  /** The plugin stops at the next node after so long, and says `stopped`. */
  stopInMs: number | null;
  traceparent: string;
  requestId: string;
  signal: AbortSignal;
}

export interface PluginClient {
  /** The plugin's events in order; ends after `output` or `stopped`. Throws PluginFailure, or the signal's reason. */
  execute(call: PluginCall): AsyncGenerator<ExecutionEvent>;
  /** `GET /health`; throws when the service cannot be reached or says nothing sensible. */
  health(endpoint: string, signal: AbortSignal): Promise<unknown>;
  close(): void;
}

/** A plugin sends a line at least every 5 s; three in a row missing mean that its process is stuck or gone. */
const SILENCE_MS = 20_000;
const MAX_LINE_BYTES = MAX_OUTPUT_BYTES + 64 * 1024;
const MAX_LINES = 20_000;
/** The result, and what so many events of a usual length come to. */
const MAX_ANSWER_BYTES = MAX_OUTPUT_BYTES + 32 * 1024 * 1024;

/** What an ingress or an activator says for a service that has no pod, or whose pods are full, starting or stopping. */
const NOT_THERE = new Set([404, 429, 502, 503, 504]);

export function openPluginClient(): PluginClient {
  const agent = new Agent({ connect: { timeout: 5_000 }, headersTimeout: SILENCE_MS, bodyTimeout: SILENCE_MS, keepAliveTimeout: 30_000, pipelining: 1, connections: null });
  return {
    execute: (call) => execute(agent, call),
    async health(endpoint, signal) {
      // The header may be long in coming: a sleeping plugin's pod is started first.
      const answer = await translate(signal, () => request(`${endpoint}/health`, { dispatcher: agent, signal, headersTimeout: 0, bodyTimeout: 10_000 }));
      const text = await boundedText(answer.body, 64 * 1024);
      if (answer.statusCode !== 200) {
        const isUnreached = NOT_THERE.has(answer.statusCode);
        throw new PluginFailure("PLUGIN_UNAVAILABLE", `The plugin's health check answered ${answer.statusCode}.`, "plugin", true, { isUnreached });
      }
      return JSON.parse(text) as unknown;
    },
    close: () => void agent.destroy(),
  };
}

async function* execute(agent: Agent, call: PluginCall): AsyncGenerator<ExecutionEvent> {
  const isVersion2 = majorOf(call.envelopeVersion) === "2";
  const answer = await translate(call.signal, () =>
    request(`${call.endpoint}/execute`, {
      method: "POST",
      dispatcher: agent,
      signal: call.signal,
      headers: {
        "content-type": "application/json",
        accept: "application/x-ndjson",
        "aau-llm-token": call.llmToken,
        "aau-scoped-token": call.scopedToken,
        ...(call.chainToken !== null && { "aau-chain-token": call.chainToken }),
        "aau-models": call.hasModel ? "live" : "offline",
        // Spans, not instants: the clocks of two machines may differ by minutes.
        "aau-time-left-ms": String(Math.round(call.timeLeftMs)),
        ...(call.stopInMs !== null && { "aau-stop-in-ms": String(Math.round(call.stopInMs)) }),
        "aau-request-id": call.requestId,
        traceparent: call.traceparent,
      },
      body: JSON.stringify(isVersion2 ? inputTo2(call.input) : call.input),
    }),
  );
  if (answer.statusCode !== 200) {
    await answer.body.dump().catch(() => {});
    const { statusCode } = answer;
    if (statusCode === 422 || statusCode === 413) throw new PluginFailure("INTERNAL", `The plugin did not understand its input (${statusCode}).`, "plugin", false);
    // 404 comes from a service that is just being set up, 429 and 503 from one that is full, starting or stopping.
    const isUnreached = statusCode === 404 || statusCode === 429 || statusCode === 503;
    const seconds = Number(answer.headers["retry-after"] ?? Number.NaN);
    throw new PluginFailure("PLUGIN_UNAVAILABLE", `The plugin answered ${statusCode}.`, "plugin", isUnreached || statusCode >= 500, {
      isUnreached,
      retryAfterMs: Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : null,
    });
  }
  let lines = 0;
  for await (const line of readLines(answer.body, call.signal)) {
    if (++lines > MAX_LINES) throw new PluginFailure("INTERNAL", "The plugin sent too many events.", "plugin", false);
    const event = parseEvent(line, isVersion2);
    yield event;
    if (event.type === "output" || event.type === "stopped") {
      answer.body.destroy();
      return;
    }
  }
  throw new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin's process ended before it gave a result.", "plugin", true, { isCutOff: true });
}

const ExecutionEvent2 = executionEvent(OutputEnvelope2);

function parseEvent(line: string, isVersion2: boolean): ExecutionEvent {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new PluginFailure("INTERNAL", "The plugin's answer is not valid JSON.", "plugin", false);
  }
  const parsed = isVersion2 ? v.safeParse(ExecutionEvent2, value) : v.safeParse(ExecutionEvent, value);
  if (!parsed.success) {
    const at = v.getDotPath(parsed.issues[0])?.slice(0, 100);
    throw new PluginFailure("INTERNAL", `The plugin's answer does not fit the envelope ${isVersion2 ? "2.0" : "1.0"}${at ? ` at ${at}` : ""}.`, "plugin", false);
  }
  const event = parsed.output;
  if (event.type !== "output") return event;
  const envelope = "execution_meta" in event.envelope ? event.envelope : outputTo1(event.envelope);
  const trouble = troubleInData(value);
  if (trouble !== null) throw new PluginFailure("INTERNAL", `The plugin's answer ${trouble}.`, "plugin", false);
  return { type: "output", envelope };
}

async function* readLines(body: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<string> {
  let rest: Buffer[] = [];
  let size = 0;
  let total = 0;
  const chunks = body[Symbol.asyncIterator]();
  for (;;) {
    const next = await translate(signal, () => chunks.next());
    if (next.done) break;
    let chunk = next.value;
    total += chunk.byteLength;
    if (total > MAX_ANSWER_BYTES) throw new PluginFailure("INTERNAL", "The plugin's answer is too long.", "plugin", false);
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10)) {
      const line = Buffer.concat([...rest, chunk.subarray(0, end)]).toString("utf8");
      rest = [];
      size = 0;
      chunk = chunk.subarray(end + 1);
      if (line.trim() !== "") yield line;
    }
    size += chunk.byteLength;
    if (size > MAX_LINE_BYTES)
      throw new PluginFailure("INTERNAL", `The plugin's result is larger than ${MAX_OUTPUT_BYTES} bytes; large results belong in artifacts.`, "plugin", false);
    if (chunk.byteLength > 0) rest.push(chunk);
  }
}

const NEVER_REACHED = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT)$/;

async function translate<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (code === "UND_ERR_BODY_TIMEOUT" || code === "UND_ERR_HEADERS_TIMEOUT") {
      throw new PluginFailure("PLUGIN_TIMEOUT", "The plugin's process stopped answering.", "plugin", true, { cause: error });
    }
    if (NEVER_REACHED.test(code)) throw new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin cannot be reached.", "plugin", true, { cause: error, isUnreached: true });
    throw new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin's process ended, or its connection broke, before it gave a result.", "plugin", true, {
      cause: error,
      isCutOff: true,
    });
  }
}

async function boundedText(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new Error("answer too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
