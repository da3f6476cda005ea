/** One call of a tracker's REST API: bounded in time and size, patient where the service asks for patience. */
import { setTimeout as wait } from "node:timers/promises";
import { CallerMistake, EgressRefused, type GuardedFetch, timeLimit, UpstreamUnavailable } from "@aau/sdk";

const TIMEOUT_MS = 15_000;
const MAX_TRIES = 4;
/** Longer than this, another attempt of the task waits better than this one. */
const MAX_WAIT_MS = 20_000;
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

export interface Service {
  /** As people call it: `GitHub`. */
  name: string;
  base: URL;
  headers: Readonly<Record<string, string>>;
  /** The name of the secret that opens it, for messages. */
  secretName: string;
  /** Run by the provider for everyone, so that its trouble passes without the tenant's help. */
  isShared: boolean;
  fetch: GuardedFetch;
  signal: AbortSignal;
}

export interface Answer {
  status: number;
  json: unknown;
}

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** An https URL, or http on this machine, without anything that does not belong there. */
export function serviceUrl(text: string, setting: string): URL {
  const problem = `The setting ${setting} must be an https URL without user, query and fragment.`;
  if (!URL.canParse(text)) throw new CallerMistake(problem);
  const url = new URL(text);
  const isSafe = url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.has(url.hostname));
  if (!isSafe || url.username || url.password || url.search || url.hash) throw new CallerMistake(problem);
  return url;
}

/** `isOneOf` says which hosts are the provider's own; this machine plays the provider in tests. */
export function isShared({ hostname }: URL, isOneOf: (hostname: string) => boolean): boolean {
  return isOneOf(hostname) || LOOPBACK.has(hostname);
}

/** Whichever it is, the tenant chose it: a site that is suspended, or a provider's outage, must not close the plugin for those with other trackers. */
export function away(service: Service, what: string, cause?: unknown): Error {
  if (service.isShared) return new UpstreamUnavailable(`${what}. What was filed stays; running the task again files the rest.`, { cause, isCallers: true });
  return new CallerMistake(`${what} (${service.base.host}). Try again when it works; what was filed is not filed twice.`, { cause });
}

/** The limit is that of the tenant's own token. */
const usedUp = ({ name, secretName }: Service) =>
  new CallerMistake(`${name}'s limit of requests for the secret ${secretName} is used up. Run the task again later: what is filed already is not filed twice.`);

/** Milliseconds that the service asks to wait, `null` when it does not say. */
function askedToWait(headers: Headers): number | null {
  const after = headers.get("retry-after");
  if (after !== null) return /^\d{1,9}$/.test(after.trim()) ? Number(after) * 1000 : Math.max(Date.parse(after) - Date.now(), 0) || null;
  const reset = headers.get("x-ratelimit-remaining") === "0" ? Number(headers.get("x-ratelimit-reset")) : Number.NaN;
  return Number.isFinite(reset) ? Math.max(reset * 1000 - Date.now(), 0) : null;
}

/** GitHub says 403 for two things: no permission, and no requests left. */
const isLimited = ({ status, headers }: Response) => status === 429 || (status === 403 && (headers.has("retry-after") || headers.get("x-ratelimit-remaining") === "0"));

async function readJson(service: Service, response: Response): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_ANSWER_BYTES) throw away(service, `${service.name}'s answer is larger than 8 MB`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8") || "null");
  } catch {
    return null;
  }
}

/**
 * Limits are waited for and tried again, since the service did nothing. Other trouble is tried again only for reading: a write whose answer is
 * lost may have happened, and whoever files looks before filing again.
 *
 * @returns any answer but 401, 429 and 5xx, for the tracker to understand.
 */
export async function call(service: Service, method: "GET" | "POST" | "PUT" | "PATCH", path: string, body?: unknown, isRead = method === "GET"): Promise<Answer> {
  const url = `${service.base.href.replace(/\/+$/, "")}${path}`;
  for (let tries = 1; ; tries += 1) {
    service.signal.throwIfAborted();
    let pauseMs = Math.random() * 250 * 4 ** tries;
    let trouble: Error;
    try {
      const response = await service.fetch(url, {
        method,
        headers: { "user-agent": "aau-ticket-processor", ...service.headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.any([service.signal, timeLimit(TIMEOUT_MS)]),
      });
      const { status } = response;
      if (status === 401) {
        await response.body?.cancel();
        throw new CallerMistake(`${service.name} does not accept the secret ${service.secretName}: it is wrong, expired or revoked.`);
      }
      const limited = isLimited(response);
      if (!limited && status < 500) return { status, json: await readJson(service, response) };
      await response.body?.cancel();
      trouble = limited ? usedUp(service) : away(service, `${service.name} answered ${status}`);
      if (!limited && !isRead) throw trouble;
      pauseMs = askedToWait(response.headers) ?? pauseMs;
    } catch (error) {
      service.signal.throwIfAborted();
      if (error instanceof EgressRefused) throw new CallerMistake(`The address of ${service.name} (${service.base.host}) may not be called.`, { cause: error });
      if (error instanceof CallerMistake || error instanceof UpstreamUnavailable) throw error;
      trouble = away(service, `${service.name} could not be reached`, error);
      if (!isRead) throw trouble;
    }
    if (tries === MAX_TRIES || pauseMs > MAX_WAIT_MS) throw trouble;
    await wait(pauseMs, undefined, { signal: service.signal });
  }
}
