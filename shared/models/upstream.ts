/** The provider behind the llm-gateway, as the gateway sees it: a server that speaks the Messages API, or the offline model. */
import type { Readable } from "node:stream";
import { Agent } from "undici";
import { OFFLINE_MODEL } from "./offline-language/answer.ts";
import { offlineAnswer } from "./offline-language/offline-answer.ts";

export interface UpstreamAnswer {
  status: number;
  headers: Headers;
  /** The provider's bytes as they come: JSON, or Server-Sent Events. */
  body: ReadableStream<Uint8Array>;
}

export interface Upstream {
  /** False when there is no provider: answers then come from the offline model, and everything says so. */
  readonly live: boolean;
  /**
   * False when nobody sends a bill: offline, and with ANTHROPIC_BASE_URL but no ANTHROPIC_API_KEY, which is a server of the
   * operator's own. Tokens are counted there too; they cost nothing.
   */
  readonly charges: boolean;
  /** One `POST /v1/messages`. Aborting the signal closes the provider's socket. */
  messages(body: Uint8Array, options: { headers: Record<string, string>; signal: AbortSignal }): Promise<UpstreamAnswer>;
  /** The model that a request really goes to. */
  resolveModel(requested: string): string;
  /** Closes every socket, also those with a call on them. */
  close(): Promise<void>;
}

export interface UpstreamOptions {
  apiKey?: string;
  baseUrl?: string;
  model?: string;
}

const DEFAULT_BASE_URL = "https://api.anthropic.com";
const API_VERSION = "2023-06-01";
const CONNECT_TIMEOUT_MS = 5_000;
/** An answer that is not streamed begins when it is finished, which may take as long as the longest request. */
const HEADERS_TIMEOUT_MS = 600_000;
/** Providers send a `ping` event long before this. */
const IDLE_TIMEOUT_MS = 120_000;

export function openUpstream({ apiKey, baseUrl, model }: UpstreamOptions): Upstream {
  if (!apiKey && !baseUrl) {
    return {
      live: false,
      charges: false,
      messages: async (body, { signal }) => {
        signal.throwIfAborted();
        return offlineAnswer(body);
      },
      resolveModel: () => OFFLINE_MODEL,
      close: async () => {},
    };
  }

  const endpoint = new URL(`${(baseUrl ?? DEFAULT_BASE_URL).replace(/\/+$/, "")}/v1/messages`);
  const agent = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS }, headersTimeout: HEADERS_TIMEOUT_MS, bodyTimeout: IDLE_TIMEOUT_MS });
  return {
    live: true,
    charges: apiKey !== undefined,
    async messages(body, { headers, signal }) {
      const answer = await agent.request({
        origin: endpoint.origin,
        path: endpoint.pathname + endpoint.search,
        method: "POST",
        headers: { "content-type": "application/json", "anthropic-version": API_VERSION, ...headers, ...(apiKey ? { "x-api-key": apiKey } : {}) },
        body,
        signal,
      });
      return { status: answer.statusCode, headers: asHeaders(answer.headers), body: asWebStream(answer.body) };
    },
    resolveModel: (requested) => model ?? requested,
    close: () => agent.destroy(),
  };
}

export interface UpstreamTrouble {
  status: number;
  type: "timeout_error" | "overloaded_error" | "api_error";
  message: string;
}

/** How a call that brought no answer, or only a part of one, is told to the plugin. */
export function troubleOf(error: unknown): UpstreamTrouble {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  if (/TIMEOUT|ETIMEDOUT/.test(code)) return { status: 504, type: "timeout_error", message: "The model's provider did not answer in time." };
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/.test(code)) {
    return { status: 529, type: "overloaded_error", message: "The model's provider cannot be reached." };
  }
  return { status: 502, type: "api_error", message: "The model's provider gave no complete answer." };
}

function asHeaders(raw: Record<string, string | string[] | undefined>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(raw)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined) headers.append(name, one);
  }
  return headers;
}

/** Unlike Readable.toWeb it reads nothing ahead, so what the plugin has not taken yet holds the provider back. */
function asWebStream(body: Readable): ReadableStream<Uint8Array> {
  // An abort while nobody reads must not end the process; the next read gets the error.
  body.on("error", () => {});
  const chunks = body[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel() {
        body.destroy();
      },
    },
    { highWaterMark: 0 },
  );
}
