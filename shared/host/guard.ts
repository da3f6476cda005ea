/** What stands between a request and a handler: the key, the scope, the limit; or the platform's own tokens. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Admission, Doorkeeper, RateState, RouteHint } from "../access/admission.ts";
import type { Scope } from "../access/caller.ts";
import { type Caller, SCOPES } from "../access/caller.ts";
import type { Capability, CapabilityAudience, CapabilitySigner } from "../access/capability-token.ts";
import { Refusal } from "../errors.ts";
import { asId } from "../ids.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** The token of `Authorization: Bearer …`. One header, one token; anything else is no key at all. */
function bearer(headers: Headers): string {
  const [scheme, token, ...rest] = (headers.get("authorization") ?? "").split(" ");
  if (scheme?.toLowerCase() !== "bearer" || !token || rest.length > 0) {
    throw new Refusal("AUTH_INVALID", { message: "Send your API key as `Authorization: Bearer sk_live_…`.", headers: { "www-authenticate": "Bearer" } });
  }
  return token;
}

export async function authenticate(doorkeeper: Doorkeeper, metrics: Metrics, headers: Headers, hint?: RouteHint): Promise<Admission> {
  const key = bearer(headers);
  const startedAt = performance.now();
  const admission = await doorkeeper.admit(key, hint);
  metrics.authLatency.observe({ cache_hit: String(admission?.cacheHit ?? false) }, (performance.now() - startedAt) / 1000);
  if (!admission) throw new Refusal("AUTH_INVALID", { headers: { "www-authenticate": "Bearer" } });
  return admission;
}

export function checkScope(caller: Caller, scope: Scope): void {
  if (!caller.scopes.includes(scope)) throw new Refusal("FORBIDDEN_SCOPE", { message: `This call needs a key with the scope ${scope}.`, details: { required_scope: scope } });
}

export function checkEnvironment(caller: Caller): void {
  if (caller.environment === "test") throw new Refusal("FORBIDDEN_SCOPE", { message: "A test key changes nothing that live work shares; this call needs a live key." });
}

export function checkRate(rate: RateState, caller: Caller, metrics: Metrics): void {
  if (rate.admitted) return;
  metrics.rateLimitHits.inc({ tenant_id: caller.tenantId });
  throw new Refusal("RATE_LIMITED", { message: `More than ${rate.limit} requests within a minute.`, retryAfterSec: rate.resetMs / 1000 });
}

export function rateHeaders(rate: RateState, nowMs: number): Record<string, string> {
  return {
    "x-ratelimit-limit": String(rate.limit),
    "x-ratelimit-remaining": String(rate.remaining),
    "x-ratelimit-reset": String(Math.ceil((nowMs + rate.resetMs) / 1000)),
  };
}

const digest = (text: string) => createHash("sha256").update(text).digest();
const NOBODY = "00000000-0000-0000-0000-000000000000";

/** The platform's own jobs: pods that hold SERVICE_TOKEN. They act for no tenant. */
export function checkServiceToken(headers: Headers, serviceToken: string): Caller {
  if (!timingSafeEqual(digest(bearer(headers)), digest(serviceToken))) throw new Refusal("AUTH_INVALID", { message: "The service token is not valid." });
  return {
    keyId: asId("key", NOBODY),
    tenantId: asId("tenant", NOBODY),
    userId: null,
    environment: "live",
    scopes: SCOPES.slice(0, 0),
    tier: "starter",
    limits: { perTenant: 0, perPlugin: 0 },
  };
}

/** A plugin's capability, from `Authorization: Bearer` or, as provider SDKs send it, `x-api-key`. */
export function checkCapability(headers: Headers, audience: CapabilityAudience, signer: CapabilitySigner, nowMs: number): Capability {
  const token = headers.get("x-api-key") ?? bearer(headers);
  const capability = signer.verify(token, audience, nowMs);
  if (!capability) throw new Refusal("AUTH_INVALID", { message: "The capability token is not valid for this door, or has expired." });
  return capability;
}
