/**
 * Reads signatures from an OCI registry, where cosign keeps them: an image of its own under the tag `sha256-<digest>.sig`, each signature a layer.
 * The image that was named is read by its digest too, so that nothing is accepted that could not be pulled. Everything is bounded, redirects
 * are not followed, and only the registries of the platform's own settings are asked.
 */
import { createHash } from "node:crypto";
import { Agent, type Dispatcher, request } from "undici";
import * as v from "valibot";
import { Refusal } from "../errors.ts";
import type { ImageSignature } from "../sdk/src/publishing/simple-signing.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import { signatureRefusal } from "./verify-signature.ts";

export interface ImageReference {
  /** `host` or `host:port`. */
  host: string;
  repository: string;
  /** `sha256:…` */
  digest: string;
}

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const REFERENCE = /^((?:[a-z0-9-]+\.)*[a-z0-9-]+(?::\d{1,5})?)\/([a-z0-9]+(?:[._/-][a-z0-9]+)*)@(sha256:[0-9a-f]{64})$/;

/** Null for what is no image by digest; a tag may be moved after it was signed. */
export function parseImageReference(image: string): ImageReference | null {
  const [, host, repository, digest] = REFERENCE.exec(image) ?? [];
  return host && repository && digest ? { host, repository, digest } : null;
}

export interface ImageRegistry {
  /** Throws SIGNATURE_REJECTED, INVALID_INPUT for a registry that is not in the settings, SERVICE_UNAVAILABLE. Empty: there is no signature. */
  signaturesOf(image: ImageReference, signal?: AbortSignal): Promise<ImageSignature[]>;
  close(): void;
}

const MAX_MANIFEST_BYTES = 1024 * 1024;
const MAX_PAYLOAD_BYTES = 64 * 1024;
const MAX_SIGNATURES = 16;
const TIMEOUT_MS = 10_000;
/** One registration reads a few small documents; all of it takes no longer than this. */
const TOTAL_MS = 20_000;
const LAYER_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature";
const MANIFEST_TYPES = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

const SignatureImage = v.object({
  layers: v.array(
    v.object({
      mediaType: v.string(),
      digest: v.pipe(v.string(), v.regex(DIGEST)),
      size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
      annotations: v.optional(v.record(v.string(), v.string()), {}),
    }),
  ),
});

const sha256 = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** `origins`: base addresses such as `https://registry.example.com`; an image's host picks one. */
export function openImageRegistry(origins: readonly string[]): ImageRegistry {
  const agent = new Agent({ connect: { timeout: 5_000 }, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  const byHost = new Map(origins.map((origin) => [new URL(origin).host, new URL(origin).origin]));

  /** Nobody reads the rest, and the error with which the body then ends must not end the process. */
  const drop = (body: Dispatcher.ResponseData["body"]) => void body.on("error", () => {}).destroy();

  async function read(url: string, accept: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | null> {
    let answer: Awaited<ReturnType<typeof request>>;
    try {
      answer = await request(url, { dispatcher: agent, headers: { accept }, signal });
      if (answer.statusCode === 404) {
        await answer.body.dump();
        return null;
      }
      if (answer.statusCode !== 200) {
        drop(answer.body);
        throw new Error(`the image registry answered ${answer.statusCode}`);
      }
      const chunks: Uint8Array[] = [];
      let size = Number(answer.headers["content-length"] ?? 0);
      if (size <= maxBytes) {
        size = 0;
        for await (const chunk of answer.body) {
          size += chunk.byteLength;
          if (size > maxBytes) break;
          chunks.push(chunk);
        }
      }
      if (size > maxBytes) {
        drop(answer.body);
        throw signatureRefusal("too_large", `The image registry sent more than the ${maxBytes} bytes that this may have.`);
      }
      return Buffer.concat(chunks);
    } catch (cause) {
      if (cause instanceof Refusal) throw cause;
      throw new Refusal("SERVICE_UNAVAILABLE", { message: "The image registry cannot be reached, or does not answer as one.", retryAfterSec: 5, cause });
    }
  }

  return {
    async signaturesOf({ host, repository, digest }, given) {
      const origin = byHost.get(host);
      if (!origin) throw new Refusal("INVALID_INPUT", { message: "image: this platform does not take images from that registry." });
      const signal = AbortSignal.any([timeLimit(TOTAL_MS), ...(given ? [given] : [])]);
      const base = `${origin}/v2/${repository}`;
      const image = await read(`${base}/manifests/${digest}`, MANIFEST_TYPES, MAX_MANIFEST_BYTES, signal);
      if (image === null) throw signatureRefusal("image_mismatch", "The image registry has no image with this digest.");
      if (sha256(image) !== digest) throw signatureRefusal("image_mismatch", "The image registry gives another image than the digest names.");

      const stored = await read(`${base}/manifests/${digest.replace(":", "-")}.sig`, MANIFEST_TYPES, MAX_MANIFEST_BYTES, signal);
      if (stored === null) return [];
      const layers = readLayers(stored).filter(({ mediaType, annotations }) => mediaType === LAYER_TYPE && annotations[SIGNATURE_ANNOTATION] !== undefined);
      if (layers.length > MAX_SIGNATURES) throw signatureRefusal("too_many", `The image has more than ${MAX_SIGNATURES} signatures.`);
      const signatures: ImageSignature[] = [];
      for (const layer of layers) {
        if (layer.size > MAX_PAYLOAD_BYTES) throw signatureRefusal("too_large", `A signature's payload is larger than ${MAX_PAYLOAD_BYTES} bytes.`);
        const payload = await read(`${base}/blobs/${layer.digest}`, "*/*", MAX_PAYLOAD_BYTES, signal);
        if (payload === null || sha256(payload) !== layer.digest) throw signatureRefusal("image_mismatch", "A signature's payload is not what the registry says it is.");
        signatures.push({ payload, signature: Buffer.from(layer.annotations[SIGNATURE_ANNOTATION] ?? "", "base64") });
      }
      return signatures;
    },
    close: () => void agent.destroy(),
  };
}

function readLayers(stored: Uint8Array): v.InferOutput<typeof SignatureImage>["layers"] {
  try {
    return v.parse(SignatureImage, JSON.parse(Buffer.from(stored).toString("utf8"))).layers;
  } catch {
    throw signatureRefusal("unreadable", "What stands under the signature's tag is no image of signatures.");
  }
}
