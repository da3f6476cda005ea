/** Tenants, users and endpoints for a fault run, made past the API; and whose key is whose. */
import { randomBytes } from "node:crypto";
import { seedKey, seedTenant, type TenantSeed } from "../../scripts/seed-tenant.ts";
import type { KeyRing } from "../../shared/access/key-ring.ts";
import type { Database } from "../../shared/db/database.ts";
import { newId, type TenantId, type UserId, type WebhookId } from "../../shared/ids.ts";
import type { WebhookEventType } from "../../shared/webhooks/webhook-events.ts";
import { mintWebhookSecret, sealWebhookSecret } from "../../shared/webhooks/webhook-secret.ts";
import { createWebhook } from "../../shared/webhooks/webhooks.ts";
import { newUser } from "../privacy/people.ts";
import type { Behaviour } from "../webhooks/behaviours.ts";
import type { Receivers } from "./receivers.ts";

export interface Member {
  tenantId: TenantId;
  userId: UserId;
  keyId: string;
  key: string;
}

export interface Tenants {
  db: Database;
  add(seed: TenantSeed): Promise<Member>;
  /** Another user of the tenant, with a key. */
  addUser(tenantId: TenantId, email?: string): Promise<Member>;
  addKey(tenantId: TenantId, userId: UserId): Promise<Member>;
  addEndpoint(tenantId: TenantId, behaviour?: Behaviour, events?: readonly WebhookEventType[]): Promise<WebhookId>;
  /** A UUID. */
  tenantOf(apiKey: string): TenantId | undefined;
}

const EVENTS: readonly WebhookEventType[] = ["task.completed", "task.failed", "task.cancelled", "invoice.closed"];

export function openTenants(db: Database, receivers: Receivers, keyRing: KeyRing): Tenants {
  const owners = new Map<string, TenantId>();
  async function addKey(tenantId: TenantId, userId: UserId): Promise<Member> {
    const { id, key } = await seedKey(db, tenantId, { userId });
    owners.set(key, tenantId);
    return { tenantId, userId, keyId: id, key };
  }
  return {
    db,
    addKey,
    async add(seed) {
      const { tenantId, userId } = await seedTenant(db, seed);
      return addKey(tenantId, userId);
    },
    addUser: async (tenantId, email) => addKey(tenantId, await newUser(db, tenantId, email ?? `${randomBytes(6).toString("hex")}@people.example`, "owner")),
    async addEndpoint(tenantId, behaviour, events = EVENTS) {
      const [id, secret] = [newId("webhook"), mintWebhookSecret()];
      const url = receivers.add({ id, tenantId, secret }, behaviour);
      await createWebhook(db, tenantId, "operator", { id, url, description: behaviour?.name ?? "well", events, secret: sealWebhookSecret(keyRing, tenantId, id, secret) });
      return id;
    },
    tenantOf: (apiKey) => owners.get(apiKey),
  };
}
