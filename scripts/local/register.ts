/** Publishes a running plugin in the registry: reads its manifest and says where it is. */
import * as v from "valibot";
import { Manifest } from "../../shared/sdk/src/manifest.ts";
import type { ImageSignature } from "../../shared/sdk/src/publishing/simple-signing.ts";

/** The registry asks the plugin how it is before it answers. */
const TIMEOUT_MS = 60_000;

export interface Registration {
  registryUrl: string;
  serviceToken: string;
  endpoint: string;
  /** `host/repository@sha256:…` of what runs there. */
  image?: string;
  /** Where no registry holds it: signs for this image. */
  sign?(manifest: Manifest): ImageSignature;
}

export async function registerPlugin({ registryUrl, serviceToken, endpoint, image, sign }: Registration): Promise<Manifest> {
  const said = await fetch(`${endpoint}/manifest`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const manifest = v.parse(Manifest, await said.json());
  const signed = sign?.(manifest);
  const signatures = signed && [{ payload: Buffer.from(signed.payload).toString("base64"), signature: Buffer.from(signed.signature).toString("base64") }];
  const answer = await fetch(`${registryUrl}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ manifest, endpoint, image, signatures }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`${manifest.name} could not be registered: ${answer.status} ${await answer.text()}`);
  return manifest;
}
