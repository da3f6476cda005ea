/** Publishes a running plugin in the registry: reads its manifest and says where it is. */
import * as v from "valibot";
import { Manifest } from "../../shared/sdk/src/manifest.ts";

const TIMEOUT_MS = 20_000;

export interface Registration {
  registryUrl: string;
  serviceToken: string;
  endpoint: string;
}

export async function registerPlugin({ registryUrl, serviceToken, endpoint }: Registration): Promise<Manifest> {
  const said = await fetch(`${endpoint}/manifest`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const manifest = v.parse(Manifest, await said.json());
  const answer = await fetch(`${registryUrl}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ manifest, endpoint }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`${manifest.name} could not be registered: ${answer.status} ${await answer.text()}`);
  return manifest;
}
