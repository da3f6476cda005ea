/** `fetch` for an address that a caller or a tenant named. */
import type { Agent } from "undici";
import { EgressRefused } from "./egress-refused.ts";
import { type EgressPolicy, readOutboundUrl } from "./outbound-url.ts";

export interface GuardedRequest {
  method?: string;
  headers?: Headers | Record<string, string>;
  body?: string | undefined;
  signal: AbortSignal;
}

export type GuardedFetch = (url: string | URL, request: GuardedRequest) => Promise<Response>;

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Redirects are not followed: the answer shows where they lead, and the caller may ask for that.
 * The client is loaded with the first request, since most plugins make none.
 */
export function guardedFetch(policy: EgressPolicy): GuardedFetch {
  let opened: Promise<{ agent: Agent; fetch: typeof import("undici")["fetch"] }> | undefined;
  const open = async () => {
    const [{ fetch }, { guardedAgent }] = await Promise.all([import("undici"), import("./guarded-connect.ts")]);
    return { fetch, agent: guardedAgent({ ...policy, connectTimeoutMs: CONNECT_TIMEOUT_MS }) };
  };
  return async (text, request) => {
    const read = readOutboundUrl(String(text), policy);
    if ("problem" in read) throw new EgressRefused(`the URL ${read.problem}`);
    opened ??= open();
    const { agent, fetch } = await opened;
    const headers = Object.fromEntries(new Headers(request.headers));
    try {
      const answer = await fetch(read.url, { ...request, headers, redirect: "manual", dispatcher: agent });
      // The same class under another name: Node's own Response comes from a copy of this library.
      return answer as unknown as Response;
    } catch (error) {
      if (error instanceof Error && error.cause instanceof EgressRefused) throw error.cause;
      throw error;
    }
  };
}
