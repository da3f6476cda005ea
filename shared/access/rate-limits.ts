import * as v from "valibot";
import type { PlanTier, RateLimits } from "./caller.ts";

/** SPEC section 4, per plugin and minute; the limit before routing is six times that, since a task is also polled. */
const BY_TIER: Record<PlanTier, RateLimits> = {
  starter: { perTenant: 120, perPlugin: 20 },
  professional: { perTenant: 600, perPlugin: 100 },
  enterprise: { perTenant: 6000, perPlugin: 1000 },
};

const PositiveCount = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const TenantSettings = v.object({ rate_limits: v.optional(v.object({ per_tenant: v.optional(PositiveCount), per_plugin: v.optional(PositiveCount) })) });

/** The tier's limits, overridden by `settings.rate_limits` of the tenant. */
export function rateLimitsOf(tier: PlanTier, settings: unknown): RateLimits {
  const custom = v.safeParse(TenantSettings, settings);
  const own = custom.success ? custom.output.rate_limits : undefined;
  return { perTenant: own?.per_tenant ?? BY_TIER[tier].perTenant, perPlugin: own?.per_plugin ?? BY_TIER[tier].perPlugin };
}
