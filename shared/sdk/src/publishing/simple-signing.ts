/**
 * What a publisher signs: cosign's simple-signing payload, which names an image by its digest, with the hash of the manifest among its
 * annotations. `cosign sign --key … -a aau.manifest=sha256:… <image>@sha256:…` makes the same.
 */
import { createHash, createPublicKey, type KeyObject, sign } from "node:crypto";
import type { Manifest } from "../manifest.ts";

export const SIMPLE_SIGNING_TYPE = "cosign container image signature";
/** The annotation that ties the manifest to the image: either of them changed makes another signature necessary. */
export const MANIFEST_ANNOTATION = "aau.manifest";

export interface ImageSignature {
  /** The signed bytes. */
  payload: Uint8Array;
  /** ECDSA over SHA-256 of the payload, in DER. */
  signature: Uint8Array;
}

/** The same text for the same value, whatever the order of its keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member) ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))) : member,
  );
}

/** `sha256:` and hex, over the manifest's JSON with sorted keys. */
export function manifestDigest(manifest: Manifest): string {
  return `sha256:${createHash("sha256").update(canonical(manifest)).digest("hex")}`;
}

/** `repository`: the image's name without digest; `digest`: `sha256:…` of the image's own manifest. */
export function simpleSigningPayload(repository: string, digest: string, manifest: Manifest): Uint8Array {
  const critical = { identity: { "docker-reference": repository }, image: { "docker-manifest-digest": digest }, type: SIMPLE_SIGNING_TYPE };
  return Buffer.from(JSON.stringify({ critical, optional: { [MANIFEST_ANNOTATION]: manifestDigest(manifest) } }));
}

/** True for the one kind of key that is used: ECDSA on P-256, which is what `cosign generate-key-pair` makes. */
export function isSigningKey(key: KeyObject): boolean {
  return key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1";
}

/** @param privateKey ECDSA P-256. Throws TypeError for any other. */
export function signImage(privateKey: KeyObject, repository: string, digest: string, manifest: Manifest): ImageSignature {
  if (!isSigningKey(createPublicKey(privateKey))) throw new TypeError("the signing key must be ECDSA on P-256");
  const payload = simpleSigningPayload(repository, digest, manifest);
  return { payload, signature: sign("sha256", payload, privateKey) };
}
