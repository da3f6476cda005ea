/**
 * Whether a trusted publisher signed this image together with this manifest. Written on node:crypto: with a key there is one ECDSA check over
 * bytes that are at hand, while @sigstore/verify is about certificates and transparency logs, which key-based signatures do not have, and
 * its current release does not run on the Node that this project supports.
 */
import { createHash, createPublicKey, verify } from "node:crypto";
import * as v from "valibot";
import { Refusal } from "../errors.ts";
import { type ImageSignature, isSigningKey, MANIFEST_ANNOTATION, SIMPLE_SIGNING_TYPE } from "../sdk/src/publishing/simple-signing.ts";

export interface PublisherKey {
  id: string;
  name: string;
  /** Null: the platform's own. */
  ownerTenantId: string | null;
  /** PEM. */
  publicKey: string;
  expiresAt: Date | null;
  revokedAt: Date | null;
}

/** The nearer to right, the later: of several signatures the best one's trouble is told. */
const TROUBLES = ["unsigned", "unreadable", "untrusted_key", "key_not_valid", "other_publisher", "other_image", "other_manifest"] as const;
export type SignatureTrouble = (typeof TROUBLES)[number];

const SAYS: Record<SignatureTrouble, string> = {
  unsigned: "The image has no signature. Sign it by its digest, and register it again.",
  unreadable: "The signature is not a cosign signature: its payload is no simple-signing JSON.",
  untrusted_key: "No key that this platform trusts made the signature.",
  key_not_valid: "The key that made the signature has expired or was revoked.",
  other_publisher: "The key that made the signature belongs to another publisher than the plugin.",
  other_image: "The signature is for another image than the one that was named.",
  other_manifest: "The signature is for another manifest than the one that was sent; sign it again.",
};

export function signatureRefusal(trouble: SignatureTrouble | "image_mismatch" | "too_large" | "too_many", message?: string): Refusal {
  const known = TROUBLES.find((one) => one === trouble);
  return new Refusal("SIGNATURE_REJECTED", { message: message ?? (known && SAYS[known]), details: { reason: trouble } });
}

const Payload = v.object({
  critical: v.object({ type: v.literal(SIMPLE_SIGNING_TYPE), image: v.object({ "docker-manifest-digest": v.string() }) }),
  optional: v.optional(v.nullable(v.record(v.string(), v.unknown()))),
});

export interface Expected {
  digest: string;
  manifestDigest: string;
  /** Whose plugin it is; undefined while nobody has registered it. */
  owner: string | null | undefined;
  now: Date;
}

/** The key behind the first signature that holds; one that does not hold proves nothing against one that does. Throws SIGNATURE_REJECTED. */
export function verifySignatures(signatures: readonly ImageSignature[], keys: readonly PublisherKey[], expected: Expected): { key: PublisherKey; payloadSha256: string } {
  let best: SignatureTrouble = "unsigned";
  for (const signature of signatures) {
    const judged = judge(signature, keys, expected);
    if (typeof judged !== "string") return { key: judged, payloadSha256: createHash("sha256").update(signature.payload).digest("hex") };
    if (TROUBLES.indexOf(judged) > TROUBLES.indexOf(best)) best = judged;
  }
  throw signatureRefusal(best);
}

/** What the payload says is believed only after the key is known to have signed these very bytes. */
function judge({ payload, signature }: ImageSignature, keys: readonly PublisherKey[], { digest, manifestDigest, owner, now }: Expected): PublisherKey | SignatureTrouble {
  const signers = keys.filter((key) => isSignedBy(key, payload, signature));
  if (signers.length === 0) return readPayload(payload) === null ? "unreadable" : "untrusted_key";
  const valid = signers.filter(({ expiresAt, revokedAt }) => revokedAt === null && (expiresAt === null || expiresAt > now));
  if (valid.length === 0) return "key_not_valid";
  const key = valid.find(({ ownerTenantId }) => owner === undefined || ownerTenantId === owner);
  if (!key) return "other_publisher";
  const said = readPayload(payload);
  if (said === null) return "unreadable";
  if (said.critical.image["docker-manifest-digest"] !== digest) return "other_image";
  return said.optional?.[MANIFEST_ANNOTATION] === manifestDigest ? key : "other_manifest";
}

function isSignedBy({ publicKey }: PublisherKey, payload: Uint8Array, signature: Uint8Array): boolean {
  try {
    const key = createPublicKey(publicKey);
    return isSigningKey(key) && verify("sha256", payload, key, signature);
  } catch {
    // Bytes that are no signature.
    return false;
  }
}

function readPayload(payload: Uint8Array): v.InferOutput<typeof Payload> | null {
  try {
    const read = v.safeParse(Payload, JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload)));
    return read.success ? read.output : null;
  } catch {
    return null;
  }
}
