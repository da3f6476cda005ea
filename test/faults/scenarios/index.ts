import { BILLING_SCENARIOS } from "./billing.ts";
import { DELIVERY_SCENARIOS } from "./delivery.ts";
import { ERASURE_SCENARIOS } from "./erasure.ts";
import { EVIL_SCENARIOS } from "./evil.ts";
import { ISOLATION_SCENARIOS } from "./isolation.ts";
import { KEY_SCENARIOS } from "./keys.ts";
import { MIGRATION_SCENARIOS } from "./migrations.ts";
import { POSTGRES_SCENARIOS } from "./postgres.ts";
import { PROVIDER_SCENARIOS } from "./provider.ts";
import { QUOTA_SCENARIOS } from "./quotas.ts";
import { REDIS_SCENARIOS } from "./redis.ts";
import type { Scenario } from "./scenario.ts";
import { SETTING_SCENARIOS } from "./settings.ts";
import { WEBHOOK_SCENARIOS } from "./webhooks.ts";

export const SCENARIOS: readonly Scenario[] = [
  ...REDIS_SCENARIOS,
  ...POSTGRES_SCENARIOS,
  ...DELIVERY_SCENARIOS,
  ...PROVIDER_SCENARIOS,
  ...EVIL_SCENARIOS,
  ...ISOLATION_SCENARIOS,
  ...QUOTA_SCENARIOS,
  ...WEBHOOK_SCENARIOS,
  ...SETTING_SCENARIOS,
  ...KEY_SCENARIOS,
  ...BILLING_SCENARIOS,
  ...ERASURE_SCENARIOS,
  ...MIGRATION_SCENARIOS,
];
