/** Files of a task, stored through the platform's scope-gateway. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { NodeContext } from "./define-plugin.ts";
import { ArtifactRef } from "./envelopes.ts";
import { GatewayError } from "./errors.ts";
import { callDoor, requireScope, type ScopedDoor } from "./scoped-call.ts";

export interface ScopedStore extends ScopedDoor {
  /** `isDelayed`: the platform keeps the file until the object store answers again. */
  onStored(ref: ArtifactRef, isDelayed: boolean): void;
}

const DOOR = "the artifact store";
/** The platform's own rule, held here too so that the harness shows what the platform would refuse. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;

function checkName(name: string): void {
  if (!NAME.test(name)) throw new TypeError("an artifact's name is 1 to 200 of A-Z, a-z, 0-9, . _ and -, and begins with a letter or digit");
}

function call(store: ScopedStore, method: "GET" | "PUT", name: string, init: { body?: Uint8Array; mediaType?: string } = {}): Promise<Response> {
  return callDoor(store, DOOR, { method, path: `artifacts/${encodeURIComponent(name)}`, ...init });
}

export function scopedArtifacts(store: ScopedStore): NodeContext["artifacts"] {
  return {
    async put({ name, mediaType, content }) {
      requireScope(store, "store:write");
      checkName(name);
      const body = typeof content === "string" ? new TextEncoder().encode(content) : content;
      const response = await call(store, "PUT", name, { body, mediaType });
      if (!response.ok) throw new GatewayError(`${DOOR} answered PUT with ${response.status}`, response.status);
      const ref = v.safeParse(ArtifactRef, await response.json().catch(() => undefined));
      if (!ref.success) throw new GatewayError("the artifact store's answer to PUT is no ArtifactRef", null);
      const sha256 = createHash("sha256").update(body).digest("hex");
      if (ref.output.sha256 !== sha256) throw new GatewayError("the artifact store holds other bytes than were sent", null);
      store.onStored(ref.output, response.headers.get("aau-artifact") === "delayed");
      return ref.output;
    },

    async get(name) {
      requireScope(store, "store:read");
      checkName(name);
      const response = await call(store, "GET", name);
      if (response.status === 404) {
        await response.body?.cancel();
        return null;
      }
      if (!response.ok) throw new GatewayError(`${DOOR} answered GET with ${response.status}`, response.status);
      return new Uint8Array(await response.arrayBuffer());
    },
  };
}
