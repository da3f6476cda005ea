/**
 * Ids are UUIDv7 inside and `prefix_` + 26 characters of Crockford base32 outside, so a reader sees what an id names and a
 * list sorts by time. Written here (like TypeID) because a task makes several per request and the encoding is the contract.
 */
import { randomFillSync } from "node:crypto";
import * as v from "valibot";

declare const brand: unique symbol;
/** A UUID in its canonical lower-case form, marked with what it names. */
export type Id<Kind extends string> = string & { readonly [brand]: Kind };

const PREFIX = {
  task: "task",
  tenant: "ten",
  user: "usr",
  key: "key",
  artifact: "art",
  plugin: "plg",
  version: "ver",
  call: "call",
  conversation: "conv",
  request: "req",
  document: "doc",
  subscription: "sub",
  invoice: "inv",
  erasure: "era",
  webhook: "whk",
  delivery: "del",
  event: "evt",
} as const;
export type IdKind = keyof typeof PREFIX;
export type TaskId = Id<"task">;
export type TenantId = Id<"tenant">;
export type UserId = Id<"user">;
export type KeyId = Id<"key">;
export type DocumentId = Id<"document">;
export type SubscriptionId = Id<"subscription">;
export type InvoiceId = Id<"invoice">;
export type ErasureId = Id<"erasure">;
export type WebhookId = Id<"webhook">;

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** For the API's document. */
const EXAMPLE_UUID = "019f0e6a-5c00-7a11-8b22-3c4d5e6f7a8b";

/** Random bytes are drawn in bulk: one call to the system's generator costs as much as hundreds of bytes of it. */
const pool = Buffer.alloc(4096);
let poolAt = pool.length;

function random(count: number): Buffer {
  if (poolAt + count > pool.length) {
    randomFillSync(pool);
    poolAt = 0;
  }
  poolAt += count;
  return pool.subarray(poolAt - count, poolAt);
}

/** A new UUIDv7: 48 bits of milliseconds, 74 random bits. */
export function newId<K extends IdKind>(_kind: K, nowMs = Date.now()): Id<K> {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  random(10).copy(bytes, 6);
  bytes.writeUInt8(0x70 | (bytes.readUInt8(6) & 0x0f), 6);
  bytes.writeUInt8(0x80 | (bytes.readUInt8(8) & 0x3f), 8);
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}` as Id<K>;
}

/** `task_01jd…` for the UUID of a task. */
export function publicId(kind: IdKind, id: string): string {
  // 128 bits from the left, with two zero bits before them; numbers of 12 bits at a time, since BigInt is ten times slower.
  let text = "";
  let held = 0;
  let bits = 2;
  for (let i = 0; i < id.length; i++) {
    const digit = id.charCodeAt(i);
    if (digit === 45) continue;
    held = (held << 4) | (digit < 58 ? digit - 48 : digit - 87);
    bits += 4;
    if (bits >= 5) {
      bits -= 5;
      text += ALPHABET.charAt(held >> bits);
      held &= (1 << bits) - 1;
    }
  }
  return `${PREFIX[kind]}_${text}`;
}

/** The UUID behind a public id, or null when the text is not an id of that kind. */
export function parseId<K extends IdKind>(kind: K, text: string): Id<K> | null {
  const prefix = `${PREFIX[kind]}_`;
  if (text.length !== prefix.length + 26 || !text.startsWith(prefix)) return null;
  let bits = 0n;
  for (const character of text.slice(prefix.length)) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return null;
    bits = (bits << 5n) | BigInt(value);
  }
  if (bits >> 128n) return null;
  const hex = bits.toString(16).padStart(32, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}` as Id<K>;
}

/** Marks a UUID that comes from our own tables. */
export function asId<K extends IdKind>(_kind: K, uuid: string): Id<K> {
  if (!UUID.test(uuid)) throw new TypeError("not a canonical UUID");
  return uuid as Id<K>;
}

export function newRequestId(): string {
  return publicId("request", newId("request"));
}

/** A path parameter that holds a public id. A malformed id answers 404 like an unknown one: both name nothing. */
export function idParam<K extends IdKind>(kind: K) {
  return v.pipe(
    v.string(),
    v.metadata({ pattern: `^${PREFIX[kind]}_[0-9a-hjkmnp-tv-z]{26}$`, examples: [publicId(kind, EXAMPLE_UUID)] }),
    v.rawTransform<string, Id<K>>(({ dataset, addIssue, NEVER }) => {
      const id = parseId(kind, dataset.value);
      if (id) return id;
      addIssue({ message: `not a ${kind} id` });
      return NEVER;
    }),
  );
}

/** 128 random bits as 32 hex characters. */
export function randomHex(): string {
  return random(16).toString("hex");
}
