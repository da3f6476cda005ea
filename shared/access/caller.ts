import * as v from "valibot";
import type { KeyId, TenantId, UserId } from "../ids.ts";

/** Every scope there is. A function declares one; a key holds some; a key can only mint keys with a subset of its own. */
export const SCOPES = [
  "tasks:read",
  "tasks:write",
  "plugins:read",
  "plugins:admin",
  "secrets:admin",
  "billing:read",
  "billing:admin",
  "keys:admin",
  "users:admin",
  "audit:read",
  "webhooks:admin",
  "knowledge:read",
  "knowledge:write",
  "privacy:admin",
] as const;
export const Scope = v.picklist(SCOPES);
export type Scope = v.InferOutput<typeof Scope>;

export const PlanTier = v.picklist(["starter", "professional", "enterprise"]);
export type PlanTier = v.InferOutput<typeof PlanTier>;
export const Environment = v.picklist(["live", "test"]);
export type Environment = v.InferOutput<typeof Environment>;

/** Requests in any sliding minute. */
export interface RateLimits {
  perTenant: number;
  perPlugin: number;
}

/** Who calls, as the key says. The tenant of a request comes from here and nowhere else. */
export interface Caller {
  keyId: KeyId;
  tenantId: TenantId;
  /** Null for a service account. */
  userId: UserId | null;
  environment: Environment;
  scopes: readonly Scope[];
  tier: PlanTier;
  limits: RateLimits;
}
