/**
 * One model call on behalf of a plugin: written down before the provider is asked, settled before the plugin hears the answer.
 *
 * When the outcome cannot be written, the answer is withheld and the plugin gets 503. The provider was paid, but the row stays
 * `started` and becomes `unknown`, so the call is known and billed to nobody. Had the plugin got the answer, it would act on it while
 * the journal knows of none, and the next attempt could get, and pay for, a different one.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { newId } from "../ids.ts";
import { eventsOf, Message, type MessageReader } from "../models/message-stream.ts";
import {
  BadRequest,
  errorEvent,
  errorResponse,
  errorTypeOf,
  type MessagesError,
  parseJson,
  type ReadRequest,
  readMessagesRequest,
  writeMessagesRequest,
} from "../models/messages-api.ts";
import { openUpstream, type Upstream, type UpstreamAnswer } from "../models/upstream.ts";
import type { Signals } from "../redis/signals.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { readBounded } from "./bounded-body.ts";
import { type OpenedCall, openCall } from "./llm-journal.ts";
import { meteredStream } from "./metered-stream.ts";
import { openCalls } from "./open-calls.ts";
import { ceilingMicroUsd, PRICE_VERSION, UNPRICED_VERSION } from "./prices.ts";
import { Settlement, STOPPED } from "./settlement.ts";

export interface ModelCallRequest {
  capability: Capability;
  requestId: string;
  traceparent: string;
  bodyBytes: Uint8Array;
  /** Aborts when the plugin hangs up or the gateway has to stop. */
  signal: AbortSignal;
  header(name: string): string | undefined;
}

interface Doors {
  db: TenantDb;
  upstream: Upstream;
  signals: Signals;
  telemetry: Telemetry;
}

const MAX_ANSWER_BYTES = 20 * 1024 * 1024;
const MAX_ERROR_BYTES = 1024 * 1024;

export async function callModel(request: ModelCallRequest, { db, upstream: provider, signals, telemetry }: Doors): Promise<Response> {
  const { capability, requestId, bodyBytes } = request;
  const upstream = capability.offline ? openUpstream({}) : provider;
  const refuse = (error: MessagesError) => errorResponse({ requestId, ...error });

  let read: ReadRequest;
  let outgoing: Buffer;
  const occurrence = v.safeParse(Occurrence, request.header("aau-occurrence"));
  try {
    if (!occurrence.success) throw new BadRequest("aau-occurrence: must be a number from 1");
    read = readMessagesRequest(bodyBytes);
    outgoing = writeMessagesRequest({ ...read.body, model: upstream.resolveModel(read.body.model) });
  } catch (error) {
    if (error instanceof BadRequest) return refuse({ status: 400, type: "invalid_request_error", message: error.message, code: "INVALID_INPUT" });
    throw error;
  }

  const id = newId("call");
  const node = request.header("aau-node") ?? "";
  const model = upstream.resolveModel(read.body.model);
  let opened: OpenedCall;
  try {
    opened = await openCall(db, capability, {
      id,
      node: nodeName(node),
      sha256: createHash("sha256").update(`${node}\n`).update(bodyBytes).digest("hex"),
      occurrence: occurrence.output,
      model,
      priceVersion: upstream.charges ? PRICE_VERSION : UNPRICED_VERSION,
      ceilingMicroUsd: upstream.charges ? ceilingMicroUsd({ ...read.shape, bytes: outgoing.byteLength, maxTokens: read.body.max_tokens }, model) : 0n,
    });
  } catch (error) {
    if (error instanceof Refusal) return refuse(JOURNAL_AWAY);
    throw error;
  }
  if (opened.outcome === "replay") return replay(opened, capability, read.body.stream === true, requestId);
  if (opened.outcome !== "proceed") return refuse(REFUSALS[opened.outcome]);

  const open = openCalls(db, signals).add(id, capability.task, capability.lease);
  const signal = AbortSignal.any([request.signal, open.signal]);
  const settlement = new Settlement({
    db,
    telemetry,
    capability,
    id,
    node: nodeName(node),
    model,
    traceparent: request.traceparent,
    charges: upstream.charges,
    requestBytes: outgoing.byteLength,
    usedBefore: Number(opened.tokens_used),
    signal,
    release: () => open[Symbol.dispose](),
  });

  FAILPOINT: await failpoint("llm.started");
  let answer: UpstreamAnswer;
  try {
    answer = await upstream.messages(outgoing, { headers: passedOn(request), signal });
  } catch (error) {
    return refuse(await settlement.broken(null, error));
  }
  settlement.providerRequestId = answer.headers.get("request-id");
  try {
    if (answer.status !== 200) return await passError(answer, settlement);
    if (answer.headers.get("content-type")?.startsWith("text/event-stream")) return streamOn(answer, signal, settlement, requestId);
    return await passMessage(answer, settlement, refuse);
  } catch (error) {
    return refuse(await settlement.broken(null, error));
  }
}

const Occurrence = v.optional(v.pipe(v.string(), v.regex(/^[1-9]\d{0,8}$/), v.transform(Number)), "1");

/** The node as people read it; the SDK sends it percent-encoded. */
function nodeName(header: string): string | null {
  if (header === "") return null;
  let name = header;
  try {
    name = decodeURIComponent(header);
  } catch {
    // Another client may send it plainly.
  }
  return name.slice(0, 200).replace(/[\p{Cc}\p{Cs}]/gu, "");
}

/** The headers of a request that mean something to the provider. The plugin's token is not among them. */
function passedOn(request: ModelCallRequest): Record<string, string> {
  const beta = request.header("anthropic-beta");
  return beta === undefined ? {} : { "anthropic-beta": beta };
}

async function passMessage(answer: UpstreamAnswer, settlement: Settlement, refuse: (error: MessagesError) => Response): Promise<Response> {
  const bytes = await readBounded(answer.body, MAX_ANSWER_BYTES);
  const message = v.safeParse(Message, parseJson(bytes));
  if (!message.success) return refuse(await settlement.broken(null, new SyntaxError("The provider's answer is not a message.")));
  const text = Buffer.from(bytes).toString("utf8");
  const trouble = await settlement.done(message.output, message.output.usage, text, bytes.byteLength);
  return trouble ? refuse(trouble) : new Response(text, { status: 200, headers: { ...settlement.headers(), "content-type": "application/json" } });
}

function streamOn(answer: UpstreamAnswer, signal: AbortSignal, settlement: Settlement, requestId: string): Response {
  const headers = { ...settlement.headers(), "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" };
  const said = (error: MessagesError) => errorEvent({ requestId, ...error });
  const body = meteredStream(answer.body, signal, {
    async whole(reader: MessageReader) {
      const { message } = reader;
      if (!message) return said(await settlement.broken(null, new SyntaxError("The provider's stream holds no message.")));
      const { isUncounted } = reader;
      const usage = reader.hasFinalUsage ? reader.usage : undefined;
      const trouble = await settlement.done(message, usage, JSON.stringify(message), reader.answerChars);
      if (trouble) return said(trouble);
      return isUncounted ? [...eventsOf({ ...message, usage: settlement.estimate(reader.answerChars) })].join("") : null;
    },
    failed: (reader) => settlement.failed(reader, { type: reader.error?.type ?? "upstream_error", status: 200 }),
    broken: async (reader, cause) => said(await settlement.broken(reader, cause)),
  });
  return new Response(body, { status: 200, headers });
}

/** The provider's own refusal, in its own words. */
async function passError(answer: UpstreamAnswer, settlement: Settlement): Promise<Response> {
  const bytes = await readBounded(answer.body, MAX_ERROR_BYTES);
  const said = v.safeParse(ErrorBody, parseJson(bytes));
  const type = said.success ? said.output.error.type : errorTypeOf(answer.status);
  await settlement.failed(null, { type, status: answer.status });
  const headers = new Headers(settlement.headers());
  headers.set("content-type", "application/json");
  const retryAfter = answer.headers.get("retry-after");
  if (retryAfter !== null) headers.set("retry-after", retryAfter);
  // Proxies before a provider answer with pages of their own; and a redirect would lead a plugin out of the platform.
  const status = answer.status >= 400 && answer.status <= 599 ? answer.status : 502;
  if (said.success && status === answer.status) return new Response(Buffer.from(bytes), { status, headers });
  return new Response(JSON.stringify({ type: "error", error: { type: errorTypeOf(status), message: `The model's provider answered with status ${answer.status}.` } }), {
    status,
    headers,
  });
}

const ErrorBody = v.looseObject({ type: v.literal("error"), error: v.looseObject({ type: v.pipe(v.string(), v.maxLength(100)) }) });

function replay(opened: OpenedCall, capability: Capability, isStreamed: boolean, requestId: string): Response {
  const text = typeof opened.answer === "string" ? opened.answer : JSON.stringify(opened.answer);
  const headers = { "request-id": requestId, "aau-replayed": "true", "aau-tokens-used": opened.tokens_used, "aau-budget": String(capability.token_budget) };
  if (!isStreamed) return new Response(text, { status: 200, headers: { ...headers, "content-type": "application/json" } });
  const events = [...eventsOf(v.parse(Message, parseJson(text)))].join("");
  return new Response(events, { status: 200, headers: { ...headers, "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" } });
}

const JOURNAL_AWAY: MessagesError = {
  status: 503,
  type: "api_error",
  message: "The platform cannot write this call down now, so it was not made.",
  code: "SERVICE_UNAVAILABLE",
  retryAfterSec: 1,
};

const REFUSALS: Record<Exclude<OpenedCall["outcome"], "proceed" | "replay">, MessagesError> = {
  in_flight: { status: 409, type: "api_error", message: "The same call is open; ask again for its answer.", code: "CONFLICT", retryAfterSec: 1 },
  lease_lost: STOPPED.lease_lost,
  cancelled: STOPPED.cancelled,
  over_cost: { status: 403, type: "permission_error", message: "This call could cost more than max_cost_usd leaves for the task.", code: "TOKEN_BUDGET_EXCEEDED" },
};
