/** The text of a key: `sk_live_` or `sk_test_` and 32 hex characters. Only its SHA-256 is ever stored or looked up. */
import { createHash } from "node:crypto";
import { randomHex } from "../ids.ts";
import type { Environment } from "./caller.ts";

const KEY = /^sk_(live|test)_[0-9a-f]{32}$/;

export function hashApiKey(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

/** True for text that could be a key; anything else is refused before any look-up. */
export function looksLikeApiKey(text: string): boolean {
  return KEY.test(text);
}

export interface MintedKey {
  plaintext: string;
  hash: string;
  /** The first 8 of the random part, for people to recognise a key by. Never used to look one up. */
  prefix: string;
}

export function mintApiKey(environment: Environment): MintedKey {
  const random = randomHex();
  const plaintext = `sk_${environment}_${random}`;
  return { plaintext, hash: hashApiKey(plaintext), prefix: random.slice(0, 8) };
}
