/**
 * Signs an image with the developer's own key, stores the signature in the image's registry as cosign does, and registers the plugin. The
 * platform verifies all of it again; nothing here is trusted.
 */
import { createHash, createPrivateKey } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import type { Manifest } from "../manifest.ts";
import { type ImageSignature, signImage } from "../publishing/simple-signing.ts";
import { timeLimit } from "../time-limit.ts";

export interface Publication {
  manifest: Manifest;
  /** `host/repository@sha256:…` */
  image: string;
  endpoint: string;
  keyFile: string;
  password: string | undefined;
  /** Base URL of the platform's registry. */
  registryUrl: string;
  serviceToken: string;
  /** How the image's registry is reached. */
  scheme: "http" | "https";
}

const TIMEOUT_MS = 30_000;
/** The registry wakes the plugin and asks how it is. */
const REGISTER_TIMEOUT_MS = 90_000;
const IMAGE = /^([^/\s]+)\/([a-z0-9._/-]+)@(sha256:[0-9a-f]{64})$/;
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE = "application/vnd.oci.image.config.v1+json";
const PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE = "dev.cosignproject.cosign/signature";
const CONFIG = Buffer.from("{}");

const SignatureImage = v.looseObject({ layers: v.array(v.looseObject({ digest: v.string(), annotations: v.optional(v.record(v.string(), v.string()), {}) })) });
type Layer = v.InferOutput<typeof SignatureImage>["layers"][number];

const sha256 = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** One sentence of what was done. Throws with what the registries said. */
export async function publish(publication: Publication): Promise<string> {
  const { manifest, image, endpoint, registryUrl, serviceToken, scheme } = publication;
  const [, host, repository, digest] = IMAGE.exec(image) ?? [];
  if (!host || !repository || !digest) throw new TypeError("--image must be host/repository@sha256:…; a tag may be moved after it was signed.");
  const key = createPrivateKey({ key: await readFile(publication.keyFile), passphrase: publication.password });
  await storeSignature(`${scheme}://${host}/v2/${repository}`, digest, signImage(key, `${host}/${repository}`, digest, manifest));

  const answer = await fetch(`${registryUrl.replace(/\/+$/, "")}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ manifest, endpoint, image }),
    signal: timeLimit(REGISTER_TIMEOUT_MS),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`The platform refused ${manifest.name} ${manifest.version} (${answer.status}): ${text}`);
  return `${manifest.name} ${manifest.version} is signed and registered: ${text}`;
}

/** Adds to the signatures that are there. The same signature bytes twice are one. */
async function storeSignature(base: string, digest: string, { payload, signature }: ImageSignature): Promise<void> {
  const tag = `${base}/manifests/${digest.replace(":", "-")}.sig`;
  const present = await fetch(tag, { headers: { accept: MANIFEST_TYPE }, redirect: "error", signal: timeLimit(TIMEOUT_MS) });
  if (present.status !== 200 && present.status !== 404) throw new Error(`The image's registry answered ${present.status}.`);
  const known = present.status === 200 ? v.parse(SignatureImage, await present.json()).layers : [];
  await pushBlob(base, payload);
  await pushBlob(base, CONFIG);
  const layer: Layer = { mediaType: PAYLOAD_TYPE, size: payload.byteLength, digest: sha256(payload), annotations: { [SIGNATURE]: Buffer.from(signature).toString("base64") } };
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: CONFIG_TYPE, size: CONFIG.byteLength, digest: sha256(CONFIG) },
    layers: [...known, layer],
  };
  await expectOk(await fetch(tag, { method: "PUT", headers: { "content-type": MANIFEST_TYPE }, body: JSON.stringify(manifest), redirect: "error", signal: timeLimit(TIMEOUT_MS) }));
}

async function pushBlob(base: string, bytes: Uint8Array): Promise<void> {
  const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST", redirect: "error", signal: timeLimit(TIMEOUT_MS) });
  await expectOk(begun);
  const to = new URL(begun.headers.get("location") ?? "", `${base}/blobs/uploads/`);
  to.searchParams.set("digest", sha256(bytes));
  const headers = { "content-type": "application/octet-stream" };
  await expectOk(await fetch(to, { method: "PUT", headers, body: Buffer.from(bytes), redirect: "error", signal: timeLimit(TIMEOUT_MS) }));
}

async function expectOk(answer: Response): Promise<void> {
  await answer.body?.cancel();
  if (!answer.ok) throw new Error(`The image's registry answered ${answer.status}.`);
}
