/** One POST of one CloudEvent, and what its answer means for the entry. */
import { Agent, request } from "undici";
import type { Entry } from "./stream-commands.ts";

export type Verdict =
  | { verdict: "done" }
  /** Try again; `counts` when the function was really reached and failed. */
  | { verdict: "retry"; counts: boolean; retryAfterMs: number | null; isOverload: boolean; reason: string }
  | { verdict: "dead"; reason: string }
  /** We hung up: nothing is known, nothing is acknowledged. */
  | { verdict: "aborted" };

export interface Target {
  url: string;
  event: string;
  serviceToken: string;
}

/** Longer than any function may take (KNATIVE.md: 600 s). */
const ANSWER_TIMEOUT_MS = 620_000;
const SOURCE = "/aau/bridge";
/** Answers that ask for another try; 404 comes from a service that is just being set up. */
const RETRY = new Set([404, 408, 409, 425, 429]);

export function deliveryAgent(): Agent {
  return new Agent({ connect: { timeout: 3_000 }, headersTimeout: ANSWER_TIMEOUT_MS, bodyTimeout: ANSWER_TIMEOUT_MS, keepAliveTimeout: 30_000, pipelining: 1, connections: null });
}

/** Fields of the bridge's own: the event's stable id, when it was first rung, and how often it was delivered. */
export const OWN_FIELDS = new Set(["id", "at", "n", "traceparent"]);

export function eventId(stream: string, entry: Entry): string {
  return entry.fields.id ?? `${stream}/${entry.id}`;
}

/** `traceparent`: the delivery's own context. */
export async function deliver(agent: Agent, stream: string, entry: Entry, target: Target, traceparent: string, signal: AbortSignal): Promise<Verdict> {
  const data = Object.fromEntries(Object.entries(entry.fields).filter(([name]) => !OWN_FIELDS.has(name)));
  // CloudEvents 1.0 in HTTP's binary mode: attributes as headers, all of them plain ASCII.
  const headers: Record<string, string> = {
    authorization: `Bearer ${target.serviceToken}`,
    traceparent,
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": eventId(stream, entry),
    "ce-source": SOURCE,
    "ce-type": target.event,
    "ce-subject": Object.values(data)[0] ?? "",
    "ce-time": new Date(Number(entry.fields.at ?? entry.id.split("-")[0])).toISOString(),
    "ce-attempt": entry.fields.n ?? "1",
  };
  if (entry.fields.traceparent) headers["ce-traceparent"] = entry.fields.traceparent;
  try {
    const answer = await request(target.url, { method: "POST", dispatcher: agent, signal, headers, body: JSON.stringify(data) });
    await answer.body.dump();
    return judge(answer.statusCode, answer.headers["retry-after"]);
  } catch (error) {
    if (signal.aborted) return { verdict: "aborted" };
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    // Refused or unknown: the function was never reached, so its work cannot have harmed it.
    const isUnreached = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|UND_ERR_CONNECT_TIMEOUT)$/.test(code);
    return { verdict: "retry", counts: !isUnreached, retryAfterMs: null, isOverload: isUnreached, reason: code || "broken connection" };
  }
}

function judge(status: number, retryAfter: string | string[] | undefined): Verdict {
  if (status >= 200 && status < 300) return { verdict: "done" };
  if (status < 500 && !RETRY.has(status)) return { verdict: "dead", reason: `answered ${status}` };
  const seconds = Number(Array.isArray(retryAfter) ? retryAfter[0] : retryAfter);
  const isOverload = status === 429 || status === 503 || status === 504;
  return {
    verdict: "retry",
    counts: !isOverload,
    retryAfterMs: Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 300) * 1000 : null,
    isOverload,
    reason: `answered ${status}`,
  };
}
