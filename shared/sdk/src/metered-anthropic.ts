/**
 * The Anthropic client that nodes get. It speaks to the platform's llm-gateway with the execution's capability token; the
 * provider's key is never here. Everything the platform adds happens in one `fetch`, so the client itself is the stock one.
 */
import { createHash } from "node:crypto";
import type Anthropic from "@anthropic-ai/sdk";
import { readAnswer, readStream, type Seen } from "./usage-reader.ts";

type AnthropicModule = typeof import("@anthropic-ai/sdk");

let loading: Promise<AnthropicModule> | undefined;

/** The client costs 60 ms to load, which a cold start should not pay before it says that it is ready. */
export function loadAnthropic(): Promise<AnthropicModule> {
  loading ??= import("@anthropic-ai/sdk");
  return loading;
}

export interface MeteredCalls {
  /** Base URL of the llm-gateway, without `/internal/llm`. */
  gatewayUrl: string;
  /** The `llm` capability token. */
  token: string;
  node: string;
  /** Ends every open call, whether or not the plugin passes it on. */
  signal: AbortSignal;
  /** Milliseconds that one call may take at most. */
  timeoutMs: number;
  /** `traceparent` and `aau-request-id` of the execution. */
  trace: Readonly<Record<string, string>>;
  /** Gives 1, 2, 3 … for the same key within one execution. */
  countOccurrence(key: string): number;
  onSeen(seen: Seen): void;
}

/**
 * A `fetch` that tells the gateway which call of the execution this is, and counts what the answer says it used.
 *
 * The gateway replays a journalled answer when a task is run again, found by node, body and occurrence. None of the three
 * depends on which parallel branch comes first: two branches of one node that send the same body may swap answers, which
 * are answers to the same question.
 */
export function meteredFetch(calls: MeteredCalls): typeof fetch {
  return async (url, init) => {
    const headers = new Headers(init?.headers);
    for (const [name, value] of Object.entries(calls.trace)) headers.set(name, value);
    const node = encodeURIComponent(calls.node);
    const digest = createHash("sha256")
      .update(typeof init?.body === "string" ? init.body : "")
      .digest("base64");
    headers.set("aau-node", node);
    headers.set("aau-occurrence", String(calls.countOccurrence(`${node} ${digest}`)));

    const signal = init?.signal ? AbortSignal.any([init.signal, calls.signal]) : calls.signal;
    const response = await fetch(url, { ...init, headers, signal });
    if (!response.ok || !response.body) return response;
    if (response.headers.get("content-type")?.includes("text/event-stream")) return new Response(response.body.pipeThrough(readStream(calls.onSeen)), response);
    const text = await response.text();
    const seen = readAnswer(text);
    if (seen) calls.onSeen(seen);
    return new Response(text, response);
  };
}

export function meteredClient({ default: Client }: AnthropicModule, calls: MeteredCalls): Anthropic {
  return new Client({
    baseURL: `${calls.gatewayUrl}/internal/llm`,
    apiKey: calls.token,
    authToken: null,
    // Retries have one owner, the platform; a second one here would multiply them.
    maxRetries: 0,
    timeout: calls.timeoutMs,
    logLevel: "off",
    fetch: meteredFetch(calls),
  });
}
