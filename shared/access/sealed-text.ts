/**
 * A secret that this process opens by itself: AES-256-GCM with a key of its own, which follows from the ring's key and what the secret belongs to.
 * A sealed text that is moved to another row cannot be opened there, and PostgreSQL sees neither the text nor a key.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { Refusal } from "../errors.ts";
import type { KeyRing, SecretAddress } from "./key-ring.ts";

export interface SealedText {
  keyId: string;
  bytes: Buffer;
}

const FORM = 1;
const IV_BYTES = 12;
const TAG_BYTES = 16;

function keyFor(ring: KeyRing, keyId: string, address: SecretAddress): Buffer | null {
  const key = ring.keyOf(keyId, address);
  return key === null ? null : Buffer.from(key, "base64");
}

/** Seals with the ring's current key. */
export function sealText(ring: KeyRing, address: SecretAddress, text: string): SealedText {
  const key = keyFor(ring, ring.current, address);
  if (!key) throw new TypeError("the ring lacks its current key");
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, iv);
  const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
  return { keyId: ring.current, bytes: Buffer.concat([Buffer.of(FORM), iv, cipher.getAuthTag(), sealed]) };
}

/** @throws Refusal SERVICE_UNAVAILABLE when no key of the ring opens it: an operator mends that by giving the right keys. */
export function openText(ring: KeyRing, address: SecretAddress, { keyId, bytes }: SealedText): string {
  const key = keyFor(ring, keyId, address);
  try {
    if (!key) throw new TypeError(`no key has the id ${keyId}`);
    if (bytes[0] !== FORM) throw new TypeError("sealed in a form that this release does not know");
    const iv = bytes.subarray(1, 1 + IV_BYTES);
    const decipher = createDecipheriv("aes-256-gcm", key, iv, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(bytes.subarray(1 + IV_BYTES, 1 + IV_BYTES + TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(1 + IV_BYTES + TAG_BYTES)), decipher.final()]).toString("utf8");
  } catch (cause) {
    throw new Refusal("SERVICE_UNAVAILABLE", { message: "A secret cannot be opened now.", retryAfterSec: 30, cause });
  }
}
