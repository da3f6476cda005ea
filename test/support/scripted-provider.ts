/**
 * The only scripted part of the tests: a local server that speaks the Messages API. It is never faulted itself; it plays the faults
 * of a provider on request, and keeps a ledger of its own, which the auditor compares with what the platform billed. It is one file on
 * purpose: it shares no line with what it tests, and runs alone.
 *
 *     const provider = await startScriptedProvider((request) => request.call === 1 ? failure(529) : answer("done"));
 *     … point ANTHROPIC_BASE_URL at provider.url, and give any ANTHROPIC_API_KEY so that calls have a price …
 *     const entry = await provider.ended(2);           // resolves when the second call is over
 *     await provider.stop();
 *
 * As a process of its own, with a ledger that is on disk before the client can see a byte of the answer:
 *
 *     tsx test/support/scripted-provider.ts --port 0 --ledger ledger.jsonl [--script my-script.ts]
 *
 * It prints `{"url": …}` as its first line. Without `--script` (a module whose default export is a Script) a request chooses for itself
 * with a directive anywhere in its text, such as `[provider:failure 429 2]` or `[provider:reset]`; see `directiveScript`.
 */
import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { appendFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

export interface ProviderUsage {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens?: number;
  cache_read_input_tokens?: number;
  cache_creation?: { ephemeral_5m_input_tokens: number; ephemeral_1h_input_tokens: number };
  inference_geo?: string;
}

export interface ProviderRequest {
  /** 1 for the first request that this server got. */
  call: number;
  model: string;
  stream: boolean;
  maxTokens: number;
  headers: Readonly<Record<string, string | undefined>>;
  body: Readonly<Record<string, unknown>>;
  /** The body's JSON text: search it for markers. */
  text: string;
}

/** What the server does with one request. Make one with the functions below. */
export interface Act {
  kind: "answer" | "failure" | "hang";
  content?: Record<string, unknown>[];
  stopReason?: string;
  /** `null` leaves usage out of the answer. */
  usage?: ProviderUsage | null;
  /** The model that the answer names; the one that was asked by default. */
  model?: string;
  /** Waits for this before the first byte. */
  after?: Promise<unknown>;
  delayMs?: number;
  status?: number;
  type?: string;
  message?: string;
  retryAfterSec?: number;
  /** Breaks a stream off after this many deltas, in this way. */
  breakAfter?: number;
  breakBy?: "reset" | "end" | "overloaded" | "pause";
  /** With `pause`: the stream goes on when this resolves. */
  until?: Promise<unknown>;
  /** Sends only this share of the JSON, then closes properly, as a proxy does that gave up. */
  truncateTo?: number;
}

export type Script = (request: ProviderRequest) => Act | Promise<Act>;

type AnswerOptions = Omit<Act, "kind" | "content" | "status" | "type" | "message" | "retryAfterSec">;
const USAGE: ProviderUsage = { input_tokens: 100, output_tokens: 20, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };

/** A text answer. */
export const answer = (text: string, options: AnswerOptions = {}): Act => ({ kind: "answer", content: [{ type: "text", text }], ...options });
/** An answer that calls a tool. */
export const toolUse = (name: string, input: Record<string, unknown>, options: AnswerOptions = {}): Act => ({
  kind: "answer",
  content: [{ type: "tool_use", id: "toolu_scripted", name, input }],
  stopReason: "tool_use",
  ...options,
});
/** An answer of any blocks, also none. */
export const blocks = (content: Record<string, unknown>[], options: AnswerOptions = {}): Act => ({ kind: "answer", content, ...options });
/** 429, 500, 529 and so on, in the provider's own shape. */
export const failure = (status: number, options: { type?: string; message?: string; retryAfterSec?: number } = {}): Act => ({ kind: "failure", status, ...options });
/** The socket is reset in the middle of the answer. */
export const resetMidStream = (breakAfter = 1): Act => answer("one two three four five six", { breakAfter, breakBy: "reset" });
/** 200, a few deltas, then `overloaded_error` inside the stream. */
export const overloadedInStream = (breakAfter = 1): Act => answer("one two three four five six", { breakAfter, breakBy: "overloaded" });
/** The stream ends properly, but before the message does. */
export const endedEarly = (breakAfter = 1): Act => answer("one two three four five six", { breakAfter, breakBy: "end" });
/** A JSON answer of which half is sent. */
export const truncatedJson = (): Act => answer("never seen as a whole", { truncateTo: 0.5 });
/** No byte until the client closes its socket. */
export const hang = (): Act => ({ kind: "hang" });

/** Holds an answer back until the test lets it go: `answer("late", { after: held.gone })`. */
export function hold(): { gone: Promise<void>; letGo(): void } {
  let letGo = () => {};
  const gone = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  return { gone, letGo };
}

export interface LedgerEntry {
  call: number;
  requestId: string;
  /** Of the body's bytes as this server got them. */
  bodySha256: string;
  model: string;
  stream: boolean;
  status: number | null;
  /** The token numbers that went out, or null when none did. On a broken stream: those of `message_start`. */
  usage: ProviderUsage | null;
  /** The whole answer was handed to the socket. */
  completed: boolean;
  /** The client closed its socket before that. */
  closedEarly: boolean;
  /** Milliseconds since the epoch. */
  startedAt: number;
  closedAt: number | null;
}

export interface ScriptedProvider {
  url: string;
  /** By call number, from 1: `ledger[0]` is call 1. */
  ledger: readonly LedgerEntry[];
  /** Resolves when this call has arrived. */
  arrived(call: number): Promise<LedgerEntry>;
  /** Resolves when this call is over: answered, broken off, or closed by the client. */
  ended(call: number): Promise<LedgerEntry>;
  /** Replaces the script for later calls. */
  use(script: Script): void;
  stop(): Promise<void>;
}

export interface ProviderOptions {
  port?: number;
  /** JSON lines, appended synchronously: `arrived` when a call is known, `answering` before any token number leaves, `ended`. */
  ledgerFile?: string;
}

export async function startScriptedProvider(script: Script, { port = 0, ledgerFile }: ProviderOptions = {}): Promise<ScriptedProvider> {
  let current = script;
  const ledger: LedgerEntry[] = [];
  const over = new Set<number>();
  const bell = new EventEmitter().setMaxListeners(0);
  const note = (event: "arrived" | "answering" | "ended", entry: LedgerEntry) => {
    if (ledgerFile) appendFileSync(ledgerFile, `${JSON.stringify({ event, ...entry })}\n`);
    if (event === "ended") over.add(entry.call);
    bell.emit(`${event} ${entry.call}`);
  };

  const server = createServer(async (request, response) => {
    const bytes = await readBody(request).catch(() => null);
    if (!bytes) return;
    if (request.method !== "POST" || request.url !== "/v1/messages") return fail(response, 404, "not_found_error", "no such address");
    const asked = readRequest(bytes, request, ledger.length + 1);
    const entry: LedgerEntry = {
      call: asked.call,
      requestId: `req_scripted_${process.pid}_${asked.call}`,
      bodySha256: createHash("sha256").update(bytes).digest("hex"),
      model: asked.model,
      stream: asked.stream,
      status: null,
      usage: null,
      completed: false,
      closedEarly: false,
      startedAt: Date.now(),
      closedAt: null,
    };
    ledger.push(entry);
    let isBrokenByUs = false;
    response.once("close", () => {
      entry.closedAt = Date.now();
      entry.closedEarly = !entry.completed && !isBrokenByUs;
      note("ended", entry);
    });
    note("arrived", entry);
    response.setHeader("request-id", entry.requestId);
    try {
      const act = await current(asked);
      if (act.delayMs) await new Promise((resolve) => setTimeout(resolve, act.delayMs).unref());
      await act.after;
      isBrokenByUs = (act.breakBy !== undefined && act.breakBy !== "pause") || act.truncateTo !== undefined;
      await play(act, asked, entry, response, () => note("answering", entry));
    } catch (error) {
      fail(response, 500, "api_error", `the script failed: ${error instanceof Error ? error.message : "unknown"}`);
    }
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the scripted provider has no port");

  const reached = async (event: "arrived" | "ended", call: number) => {
    if (event === "arrived" ? ledger.length < call : !over.has(call)) await once(bell, `${event} ${call}`, { signal: AbortSignal.timeout(15_000) });
    const entry = ledger[call - 1];
    if (!entry) throw new Error(`the scripted provider has no call ${call}`);
    return entry;
  };
  return {
    url: `http://127.0.0.1:${address.port}`,
    ledger,
    arrived: (call) => reached("arrived", call),
    ended: (call) => reached("ended", call),
    use: (next) => {
      current = next;
    },
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function play(act: Act, asked: ProviderRequest, entry: LedgerEntry, response: ServerResponse, noteAnswering: () => void): Promise<void> {
  if (act.kind === "hang") return;
  if (act.kind === "failure") {
    entry.status = act.status ?? 500;
    entry.completed = true;
    noteAnswering();
    if (act.retryAfterSec !== undefined) response.setHeader("retry-after", String(act.retryAfterSec));
    return fail(response, entry.status, act.type ?? TYPE_BY_STATUS[entry.status] ?? "api_error", act.message ?? `scripted ${entry.status}`);
  }

  const usage = act.usage === undefined ? USAGE : act.usage;
  const message = {
    id: `msg_scripted_${asked.call}`,
    type: "message",
    role: "assistant",
    model: act.model ?? asked.model,
    content: act.content ?? [],
    stop_reason: act.stopReason ?? "end_turn",
    stop_sequence: null,
    ...(usage === null ? {} : { usage }),
  };
  entry.status = 200;
  entry.usage = usage;
  if (!asked.stream) {
    const text = JSON.stringify(message);
    entry.completed = act.truncateTo === undefined;
    if (act.breakBy === "reset") {
      entry.usage = null;
      noteAnswering();
      response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
      response.write(text.slice(0, 10), () => response.socket?.resetAndDestroy());
      entry.completed = false;
      return;
    }
    noteAnswering();
    response.writeHead(200, { "content-type": "application/json" });
    response.end(act.truncateTo === undefined ? text : text.slice(0, Math.floor(text.length * act.truncateTo)));
    return;
  }
  await stream(act, message, usage, entry, response, noteAnswering);
}

interface ScriptedMessage {
  content: Record<string, unknown>[];
  stop_reason: string;
}

async function stream(act: Act, message: ScriptedMessage, usage: ProviderUsage | null, entry: LedgerEntry, response: ServerResponse, noteAnswering: () => void): Promise<void> {
  const send = (type: string, members: object) => response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`);
  const first = usage && { ...usage, output_tokens: 1 };
  entry.usage = act.breakBy === undefined || act.breakBy === "pause" ? usage : first;
  noteAnswering();
  response.writeHead(200, { "content-type": "text/event-stream" });
  send("message_start", { message: { ...message, content: [], stop_reason: null, ...(first ? { usage: first } : {}) } });
  send("ping", {});

  let sent = 0;
  for (const [index, block] of message.content.entries()) {
    const { start, deltas } = inParts(block);
    send("content_block_start", { index, content_block: start });
    for (const delta of deltas) {
      if (act.breakBy !== undefined && sent === (act.breakAfter ?? 1)) {
        if (act.breakBy !== "pause") return breakOff(act.breakBy, response, send);
        await act.until;
      }
      send("content_block_delta", { index, delta });
      sent++;
    }
    send("content_block_stop", { index });
  }
  send("message_delta", { delta: { stop_reason: message.stop_reason, stop_sequence: null }, ...(usage ? { usage: { output_tokens: usage.output_tokens } } : {}) });
  send("message_stop", {});
  entry.completed = !response.destroyed;
  response.end();
}

function breakOff(how: "reset" | "end" | "overloaded", response: ServerResponse, send: (type: string, members: object) => boolean): void {
  if (how === "overloaded") send("error", { error: { type: "overloaded_error", message: "Overloaded" } });
  if (how !== "reset") {
    response.end();
    return;
  }
  // A reset overtakes what the client has not read yet, so the last delta has to be out first.
  response.write(": \n\n", () => setImmediate(() => response.socket?.resetAndDestroy()));
}

/** A block as a provider streams it: text word by word, a tool's input in slices of ten characters. */
function inParts(block: Record<string, unknown>): { start: object; deltas: object[] } {
  if (block.type === "text" && typeof block.text === "string") {
    return { start: { ...block, text: "" }, deltas: (block.text.match(/\S+\s*/g) ?? []).map((text) => ({ type: "text_delta", text })) };
  }
  if (block.type === "thinking") {
    const deltas = [
      { type: "thinking_delta", thinking: block.thinking },
      { type: "signature_delta", signature: block.signature },
    ];
    return { start: { ...block, thinking: "", signature: "" }, deltas };
  }
  if (block.type === "tool_use") {
    const input = JSON.stringify(block.input);
    return { start: { ...block, input: {} }, deltas: (input.match(/[\s\S]{1,10}/g) ?? []).map((partial_json) => ({ type: "input_json_delta", partial_json })) };
  }
  return { start: block, deltas: [] };
}

const TYPE_BY_STATUS: Record<number, string> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  500: "api_error",
  504: "timeout_error",
  529: "overloaded_error",
};

function fail(response: ServerResponse, status: number, type: string, message: string): void {
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ type: "error", error: { type, message } }));
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function readRequest(bytes: Buffer, request: IncomingMessage, call: number): ProviderRequest {
  const text = bytes.toString("utf8");
  const body: Record<string, unknown> = JSON.parse(text);
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value]));
  return { call, model: String(body.model), stream: body.stream === true, maxTokens: Number(body.max_tokens), headers, body, text };
}

/**
 * `[provider:answer some text]`, `[provider:failure 429 2]` (status, Retry-After), `[provider:delay 300]`, `[provider:reset]`,
 * `[provider:overloaded]`, `[provider:truncated]`, `[provider:end]`, `[provider:no-usage]`, `[provider:max-tokens]`,
 * `[provider:refusal]`, `[provider:hang]`; without one, a short answer that names the call's number.
 */
export const directiveScript: Script = ({ call, text }) => {
  const [, name, rest = ""] = /\[provider:([a-z-]+) ?([^\]]*)\]/.exec(text) ?? [];
  const [first = "", second] = rest.split(" ");
  switch (name) {
    case "answer":
      return answer(rest);
    case "failure":
      return failure(Number(first), second === undefined ? {} : { retryAfterSec: Number(second) });
    case "delay":
      return answer(`scripted answer ${call}`, { delayMs: Number(first) });
    case "reset":
      return resetMidStream();
    case "overloaded":
      return overloadedInStream();
    case "truncated":
      return truncatedJson();
    case "end":
      return endedEarly();
    case "no-usage":
      return answer("nobody counted this", { usage: null });
    case "max-tokens":
      return answer("cut off in the", { stopReason: "max_tokens" });
    case "refusal":
      return blocks([], { stopReason: "refusal" });
    case "hang":
      return hang();
    default:
      return answer(`scripted answer ${call}`);
  }
};

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { port: { type: "string", default: "0" }, ledger: { type: "string" }, script: { type: "string" } } });
  const script: Script = values.script ? (await import(pathToFileURL(values.script).href)).default : directiveScript;
  const provider = await startScriptedProvider(script, { port: Number(values.port), ledgerFile: values.ledger });
  process.stdout.write(`${JSON.stringify({ url: provider.url })}\n`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void provider.stop().then(() => process.exit(0)));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
