/** One POST to an address that a tenant named: guarded, and bounded in time and size whatever the receiver does. */
import { type Dispatcher, request } from "undici";
import { EgressRefused } from "../sdk/src/egress-refused.ts";
import { guardedAgent, type Lookup } from "../sdk/src/guarded-connect.ts";
import { type EgressPolicy, type OutboundUrl, readOutboundUrl } from "../sdk/src/outbound-url.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";

/** Why there was no answer. */
export type PostFailure =
  | "address_not_allowed"
  | "name_not_found"
  | "connection_refused"
  | "connection_broken"
  | "tls_failed"
  | "timed_out"
  /** Its headers are larger than any server's should be, or are not HTTP. */
  | "unreadable_answer";

export type Posted = { ms: number } & ({ status: number; retryAfterMs: number | null; answer: string | null } | { failure: PostFailure });

export interface Egress {
  /** The first look at a URL, for those who store it. */
  read(url: string): OutboundUrl;
  /** Throws only when `signal` is aborted. */
  post(url: string, request: { headers: Record<string, string>; body: string; timeoutMs: number; signal: AbortSignal }): Promise<Posted>;
  close(): Promise<void>;
}

const CONNECT_TIMEOUT_MS = 5_000;
/** More of an answer than this is not read; the connection is closed. */
const MAX_ANSWER_BYTES = 20_000;
const KEPT_ANSWER_BYTES = 1_024;

export function openEgress(policy: EgressPolicy, lookup?: Lookup): Egress {
  const agent = guardedAgent({ ...policy, connectTimeoutMs: CONNECT_TIMEOUT_MS, lookup });
  return {
    read: (url) => readOutboundUrl(url, policy),
    close: () => agent.destroy(),

    async post(url, { headers, body, timeoutMs, signal }) {
      const startedAt = performance.now();
      const ms = () => Math.round(performance.now() - startedAt);
      // Rules may have become stricter since the URL was stored.
      const read = readOutboundUrl(url, policy);
      if ("problem" in read) return { ms: 0, failure: "address_not_allowed" };
      const limit = AbortSignal.any([signal, timeLimit(timeoutMs)]);
      try {
        const answer = await request(read.url, {
          method: "POST",
          dispatcher: agent,
          headers: { ...headers, "accept-encoding": "identity" },
          body,
          signal: limit,
        });
        const start = await readStart(answer.body, limit);
        return { ms: ms(), status: answer.statusCode, retryAfterMs: retryAfterMs(answer.headers["retry-after"]), answer: answer.headers["content-encoding"] ? null : start };
      } catch (error) {
        signal.throwIfAborted();
        return { ms: ms(), failure: limit.aborted ? "timed_out" : failureOf(error) };
      }
    },
  };
}

/** Reads on to the end or the limit: a receiver is done when it has answered, and one that never ends is not waited for. */
async function readStart(body: Dispatcher.ResponseData["body"], limit: AbortSignal): Promise<string> {
  const kept: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    limit.throwIfAborted();
    const bytes = Buffer.from(chunk);
    if (size < KEPT_ANSWER_BYTES) kept.push(bytes.subarray(0, KEPT_ANSWER_BYTES - size));
    size += bytes.length;
    if (size > MAX_ANSWER_BYTES) break;
  }
  // PostgreSQL stores no NUL.
  return Buffer.concat(kept).toString("utf8").replaceAll("\u0000", "\ufffd");
}

/** Null: not said, or not understood. */
function retryAfterMs(header: string | string[] | undefined): number | null {
  const text = (Array.isArray(header) ? header[0] : header)?.trim();
  if (!text) return null;
  if (/^\d{1,15}$/.test(text)) return Number(text) * 1000;
  const at = Date.parse(text);
  return Number.isFinite(at) ? Math.max(0, at - Date.now()) : null;
}

function failureOf(error: unknown): PostFailure {
  if (error instanceof EgressRefused) return "address_not_allowed";
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  if (/^(ENOTFOUND|EAI_)/.test(code)) return "name_not_found";
  if (/^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL)$/.test(code)) return "connection_refused";
  if (/^(UND_ERR_\w*TIMEOUT|ETIMEDOUT)$/.test(code)) return "timed_out";
  if (/CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO_|ISSUER/.test(code)) return "tls_failed";
  if (/^(UND_ERR_HEADERS_OVERFLOW|HPE_)/.test(code)) return "unreadable_answer";
  return "connection_broken";
}
