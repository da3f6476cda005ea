/** The platform's keys for tenants' secrets: one that seals, and others that still open, or soon will. */
import { createHmac } from "node:crypto";
import type { TenantId } from "../ids.ts";

export interface RingKey {
  id: string;
  /** At least 32 characters. */
  key: string;
}

export interface SecretAddress {
  tenantId: TenantId;
  plugin: string;
  name: string;
}

export interface KeyRing {
  /** The id of the key that seals. */
  readonly current: string;
  readonly ids: readonly string[];
  /** The key of this one secret; null when the ring has no key with this id. The ring's own keys never leave this process. */
  keyOf(id: string, secret: SecretAddress): string | null;
}

export const KEY_ID = /^[a-z0-9][a-z0-9_-]{0,31}$/;
const MIN_KEY_LENGTH = 32;

/** Reads `id=key,id=key`; null when it is not that. */
export function readRingKeys(text: string): RingKey[] | null {
  const keys = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map((part) => ({ id: part.slice(0, Math.max(part.indexOf("="), 0)), key: part.slice(part.indexOf("=") + 1) }));
  return keys.every(({ id, key }) => KEY_ID.test(id) && key.length >= MIN_KEY_LENGTH) ? keys : null;
}

/** @throws TypeError when two keys have one id: nobody could say which of them sealed a row. */
export function openKeyRing(current: RingKey, others: readonly RingKey[] = []): KeyRing {
  const keys = new Map<string, string>();
  for (const { id, key } of [current, ...others]) {
    if (keys.has(id)) throw new TypeError(`two keys for tenants' secrets have the id ${id}`);
    keys.set(id, key);
  }
  return {
    current: current.id,
    ids: [...keys.keys()],
    keyOf(id, { tenantId, plugin, name }) {
      const key = keys.get(id);
      return key === undefined ? null : createHmac("sha256", key).update(["aau tenant secret v1", tenantId, plugin, name].join("\0")).digest("base64");
    },
  };
}
