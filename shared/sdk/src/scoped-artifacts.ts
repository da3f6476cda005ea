/** Files of a task, stored through the platform's scope-gateway, which knows tenant, plugin and task from the token. */
import { createHash } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import * as v from "valibot";
import type { NodeContext } from "./define-plugin.ts";
import { ArtifactRef } from "./envelopes.ts";
import { GatewayError } from "./errors.ts";

export interface ScopedStore {
  /** Base URL of the scope-gateway, without `/internal/scoped`. */
  gatewayUrl: string;
  /** The `store` capability token. */
  token: string;
  /** The manifest's `required_scopes`. */
  scopes: readonly string[];
  signal: AbortSignal;
  trace: Readonly<Record<string, string>>;
  /** `isDelayed`: the platform keeps the file until the object store answers again. */
  onStored(ref: ArtifactRef, isDelayed: boolean): void;
}

const TIMEOUT_MS = 30_000;
const RETRIES = 2;
/** The platform's own rule, held here too so that the harness shows what the platform would refuse. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;

function checkName(name: string): void {
  if (!NAME.test(name)) throw new TypeError("an artifact's name is 1 to 200 of A-Z, a-z, 0-9, . _ and -, and begins with a letter or digit");
}

function requireScope(scopes: readonly string[], scope: string): void {
  if (!scopes.includes(scope)) throw new TypeError(`the manifest does not declare the scope ${scope}`);
}

/** Storing is idempotent by name, so a lost answer may be asked for again. Full jitter keeps many plugins from coming back at once. */
async function call(store: ScopedStore, method: "GET" | "PUT", name: string, init: { body?: Uint8Array; mediaType?: string } = {}): Promise<Response> {
  const url = `${store.gatewayUrl}/internal/scoped/artifacts/${encodeURIComponent(name)}`;
  const headers = { ...store.trace, authorization: `Bearer ${store.token}`, ...(init.mediaType && { "content-type": init.mediaType }) };
  for (let attempt = 0; ; attempt++) {
    store.signal.throwIfAborted();
    try {
      const signal = AbortSignal.any([store.signal, AbortSignal.timeout(TIMEOUT_MS)]);
      const response = await fetch(url, { method, headers, body: init.body, signal });
      if (response.status < 500 || attempt === RETRIES) return response;
      await response.body?.cancel();
    } catch (error) {
      store.signal.throwIfAborted();
      if (attempt === RETRIES) throw new GatewayError(`the artifact store did not answer ${method}`, null, { cause: error });
    }
    await wait(Math.random() * 100 * 4 ** attempt, undefined, { signal: store.signal });
  }
}

export function scopedArtifacts(store: ScopedStore): NodeContext["artifacts"] {
  return {
    async put({ name, mediaType, content }) {
      requireScope(store.scopes, "store:write");
      checkName(name);
      const body = typeof content === "string" ? new TextEncoder().encode(content) : content;
      const response = await call(store, "PUT", name, { body, mediaType });
      if (!response.ok) throw new GatewayError(`the artifact store answered PUT with ${response.status}`, response.status);
      const ref = v.safeParse(ArtifactRef, await response.json().catch(() => undefined));
      if (!ref.success) throw new GatewayError("the artifact store's answer to PUT is no ArtifactRef", null);
      const sha256 = createHash("sha256").update(body).digest("hex");
      if (ref.output.sha256 !== sha256) throw new GatewayError("the artifact store holds other bytes than were sent", null);
      store.onStored(ref.output, response.headers.get("aau-artifact") === "delayed");
      return ref.output;
    },

    async get(name) {
      requireScope(store.scopes, "store:read");
      checkName(name);
      const response = await call(store, "GET", name);
      if (response.status === 404) {
        await response.body?.cancel();
        return null;
      }
      if (!response.ok) throw new GatewayError(`the artifact store answered GET with ${response.status}`, response.status);
      return new Uint8Array(await response.arrayBuffer());
    },
  };
}
