/** Decides whether an image may run as this plugin version, and writes the platform's word for it. */
import type { PlatformDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import type { Manifest } from "../sdk/src/manifest.ts";
import { type ImageSignature, manifestDigest } from "../sdk/src/publishing/simple-signing.ts";
import type { AdmissionSigner, SignedAdmission } from "./admission-record.ts";
import { type ImageRegistry, parseImageReference } from "./image-registry.ts";
import { listPublisherKeys } from "./publisher-keys.ts";
import { signatureRefusal, verifySignatures } from "./verify-signature.ts";

/** What registration needs of the outside: the platform's key, the image registries, and how strict this installation is. */
export interface PluginTrust {
  signer: AdmissionSigner;
  images: ImageRegistry;
  /** For local development: what nobody signed is taken too. */
  allowsUnsigned: boolean;
}

export interface ImageToAdmit {
  manifest: Manifest;
  /** By digest; null where there is no image. */
  image: string | null;
  /** Sent along; without them the image's registry is asked. */
  signatures: readonly ImageSignature[] | null;
}

export interface Admission {
  signed: SignedAdmission;
  /** Of the key: becomes the plugin's owner when it is new. */
  ownerTenantId: string | null;
}

/** `owner`: whose plugin it is by now; undefined when it is new. Throws SIGNATURE_REJECTED. */
export async function admitImage(trust: PluginTrust, db: PlatformDb, asked: ImageToAdmit, owner: string | null | undefined, signal?: AbortSignal): Promise<Admission> {
  const { manifest, image } = asked;
  const record = { v: 1 as const, plugin: manifest.name, version: manifest.version, manifest: manifestDigest(manifest), image, admitted_at: new Date().toISOString() };
  if (image === null) {
    if (!trust.allowsUnsigned) throw signatureRefusal("unsigned", "Name the plugin's image by its digest; what nobody signed is not taken here.");
    return { signed: trust.signer.sign({ ...record, publisher_key: null }), ownerTenantId: owner ?? null };
  }
  const reference = parseImageReference(image);
  if (!reference) throw new Refusal("INVALID_INPUT", { message: "image: must be host/repository@sha256:…; a tag may be moved after it was signed" });
  const signatures = asked.signatures ?? (await trust.images.signaturesOf(reference, signal));
  if (signatures.length === 0 && trust.allowsUnsigned) return { signed: trust.signer.sign({ ...record, publisher_key: null }), ownerTenantId: owner ?? null };
  const { key } = verifySignatures(signatures, await listPublisherKeys(db), { digest: reference.digest, manifestDigest: record.manifest, owner, now: new Date() });
  return { signed: trust.signer.sign({ ...record, publisher_key: key.id }), ownerTenantId: key.ownerTenantId };
}

/**
 * Whether what was accepted still holds: asked each time a version becomes routable. The platform's own signature covers the manifest as it
 * stands now, and the publisher's key has not been withdrawn since.
 */
export async function isStillAdmitted(trust: PluginTrust, db: PlatformDb, manifest: Manifest, image: string | null, admission: SignedAdmission | null): Promise<boolean> {
  if (admission === null || !trust.signer.isGenuine(admission)) return false;
  const { record } = admission;
  if (record.plugin !== manifest.name || record.version !== manifest.version || record.manifest !== manifestDigest(manifest) || record.image !== image) return false;
  if (record.publisher_key === null) return trust.allowsUnsigned;
  const key = (await listPublisherKeys(db)).find(({ id }) => id === record.publisher_key);
  return key !== undefined && key.revokedAt === null;
}
