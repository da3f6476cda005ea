/** One call of the platform's scope-gateway, which knows tenant, plugin and task from the token. */
import { setTimeout as wait } from "node:timers/promises";
import { GatewayError } from "./errors.ts";
import { timeLimit } from "./time-limit.ts";

export interface ScopedDoor {
  /** Base URL of the scope-gateway, without `/internal/scoped`. */
  gatewayUrl: string;
  /** The `scoped` capability token. */
  token: string;
  /** The manifest's `required_scopes`. */
  scopes: readonly string[];
  signal: AbortSignal;
  trace: Readonly<Record<string, string>>;
}

export interface ScopedRequest {
  method: "GET" | "PUT" | "POST" | "PATCH";
  /** Under `/internal/scoped/`. */
  path: string;
  body?: Uint8Array | string;
  mediaType?: string;
}

const TIMEOUT_MS = 30_000;
const RETRIES = 2;

/** The platform's own rule, held here too so that the harness shows what the platform would refuse. */
export function requireScope({ scopes }: Pick<ScopedDoor, "scopes">, scope: string): void {
  if (!scopes.includes(scope)) throw new TypeError(`the manifest does not declare the scope ${scope}`);
}

/**
 * Every door is idempotent, so a lost answer may be asked for again. Full jitter keeps many plugins from coming back at once.
 *
 * @param what Names the door in errors, such as `the artifact store`.
 */
export async function callDoor(door: ScopedDoor, what: string, { method, path, body, mediaType }: ScopedRequest): Promise<Response> {
  const url = `${door.gatewayUrl}/internal/scoped/${path}`;
  const headers = { ...door.trace, authorization: `Bearer ${door.token}`, ...(mediaType && { "content-type": mediaType }) };
  for (let attempt = 0; ; attempt++) {
    door.signal.throwIfAborted();
    try {
      const signal = AbortSignal.any([door.signal, timeLimit(TIMEOUT_MS)]);
      const response = await fetch(url, { method, headers, body, signal });
      if (response.status < 500 || attempt === RETRIES) return response;
      await response.body?.cancel();
    } catch (error) {
      door.signal.throwIfAborted();
      if (attempt === RETRIES) throw new GatewayError(`${what} did not answer ${method}`, null, { cause: error });
    }
    await wait(Math.random() * 100 * 4 ** attempt, undefined, { signal: door.signal });
  }
}
