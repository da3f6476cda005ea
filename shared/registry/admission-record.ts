/**
 * The platform's own signature under an image that it has accepted: which plugin version, which image, which manifest, on whose key. It is stored
 * with the version, and read again whenever the version becomes routable: a row that somebody changed in the database is not run.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import * as v from "valibot";

const Record_ = v.strictObject({
  v: v.literal(1),
  plugin: v.string(),
  version: v.string(),
  manifest: v.string(),
  /** Null: nothing was signed, on an installation that allows it. */
  image: v.nullable(v.string()),
  publisher_key: v.nullable(v.string()),
  admitted_at: v.string(),
});
export type AdmissionRecord = v.InferOutput<typeof Record_>;

export const SignedAdmission = v.strictObject({ record: Record_, key: v.string(), signature: v.string() });
export type SignedAdmission = v.InferOutput<typeof SignedAdmission>;

export interface AdmissionSigner {
  sign(record: AdmissionRecord): SignedAdmission;
  /** Whether this installation wrote exactly this. */
  isGenuine(admission: SignedAdmission): boolean;
  /** PEM, for whoever checks admissions elsewhere. */
  readonly publicKey: string;
}

/** RFC 8410: what stands before the 32 bytes of an Ed25519 private key. */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");

/** `secret` is ADMISSION_KEY; the Ed25519 key is derived from it, so that one random text is all there is to keep. */
export function admissionSigner(secret: string): AdmissionSigner {
  const seed = createHash("sha256").update("aau admission v1\0").update(secret).digest();
  const privateKey: KeyObject = createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, seed]), format: "der", type: "pkcs8" });
  const publicKey = createPublicKey(privateKey);
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  const id = createHash("sha256").update(pem).digest("hex").slice(0, 16);
  return {
    publicKey: pem,
    sign: (record) => ({ record, key: id, signature: sign(null, bytesOf(record), privateKey).toString("base64") }),
    isGenuine: ({ record, key, signature }) => key === id && verify(null, bytesOf(record), publicKey, Buffer.from(signature, "base64")),
  };
}

/** In one order, whatever jsonb has made of it. */
function bytesOf({ v: version, plugin, version: of, manifest, image, publisher_key, admitted_at }: AdmissionRecord): Buffer {
  return Buffer.from(JSON.stringify([version, plugin, of, manifest, image, publisher_key, admitted_at]));
}
