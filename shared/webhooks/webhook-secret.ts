/** The secrets that sign deliveries, as Standard Webhooks writes them: `whsec_` and base64. Shown once; kept sealed. */
import { randomBytes } from "node:crypto";
import type { KeyRing, SecretAddress } from "../access/key-ring.ts";
import { openText, type SealedText, sealText } from "../access/sealed-text.ts";
import type { TenantId, WebhookId } from "../ids.ts";

const SECRET_BYTES = 32;

export const mintWebhookSecret = (): string => `whsec_${randomBytes(SECRET_BYTES).toString("base64")}`;

/** No plugin has a colon in its name, so no secret of a plugin has the same address. */
const addressOf = (tenantId: TenantId, id: WebhookId): SecretAddress => ({ tenantId, plugin: "aau:webhook", name: id });

export const sealWebhookSecret = (ring: KeyRing, tenantId: TenantId, id: WebhookId, secret: string): SealedText => sealText(ring, addressOf(tenantId, id), secret);

/** @throws Refusal when the ring has lost the key. */
export const openWebhookSecret = (ring: KeyRing, tenantId: TenantId, id: WebhookId, sealed: SealedText): string => openText(ring, addressOf(tenantId, id), sealed);
