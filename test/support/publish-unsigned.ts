/** Puts a plugin into the catalogue without a registry function: routable at once, and signed by nobody. */

import type { PlatformDb } from "../../shared/db/database.ts";
import { randomHex } from "../../shared/ids.ts";
import type { Embedder } from "../../shared/models/embedder.ts";
import { admissionSigner } from "../../shared/registry/admission-record.ts";
import { admitImage } from "../../shared/registry/admit-image.ts";
import { openImageRegistry } from "../../shared/registry/image-registry.ts";
import { circularDependency } from "../../shared/registry/refuse-registration.ts";
import { makeRoutable, registerPlugin } from "../../shared/registry/register-plugin.ts";
import type { Manifest } from "../../shared/sdk/src/manifest.ts";

/** The registry's generation afterwards. */
export async function publishUnsigned(db: PlatformDb, embedder: Embedder, manifest: Manifest, endpoint: string): Promise<string> {
  const trust = { signer: admissionSigner(randomHex()), images: openImageRegistry([]), allowsUnsigned: true };
  const admission = await admitImage(trust, db, { manifest, image: null, signatures: null }, null);
  const { generation } = await registerPlugin(db, embedder, { manifest, endpoint, admission });
  const routable = await makeRoutable(db, trust, manifest.name, manifest.version);
  if (routable?.circle) throw circularDependency(routable.circle);
  return routable?.generation ?? generation;
}
