/** Bundles of the isolated local platform are signed as images are: by a key that this installation makes for itself and trusts. */
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { openDatabase } from "../../shared/db/database.ts";
import { trustPublisherKey } from "../../shared/registry/publisher-keys.ts";
import type { Manifest } from "../../shared/sdk/src/manifest.ts";
import { type ImageSignature, signImage } from "../../shared/sdk/src/publishing/simple-signing.ts";
import type { Home } from "./home.ts";

const KEY_NAME = "local-build";

function ownKey(home: Home): KeyObject {
  const file = home.path("signing-key.pem");
  if (existsSync(file)) return createPrivateKey(readFileSync(file));
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  writeFileSync(file, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  return privateKey;
}

export interface LocalPublisher {
  /** What registering says of a bundle. */
  signed(name: string, bundleFile: string): { image: string; sign(manifest: Manifest): ImageSignature };
}

export async function localPublisher(home: Home, databaseUrl: string): Promise<LocalPublisher> {
  const key = ownKey(home);
  const db = await openDatabase({ url: databaseUrl, driver: "pg", poolSize: 1 });
  const publicKey = createPublicKey(key).export({ type: "spki", format: "pem" }).toString();
  try {
    await trustPublisherKey(db, { name: KEY_NAME, publicKey, ownerTenantId: null, expiresAt: null });
    // Elsewhere a version's image never changes; here it was built again.
    await db.platform((tx) => tx.updateTable("plugin_versions").set({ image: null }).where("image", "like", "local/%").execute());
  } finally {
    await db.close();
  }
  return {
    signed(name, bundleFile) {
      const [repository, digest] = [`local/${name}`, `sha256:${createHash("sha256").update(readFileSync(bundleFile)).digest("hex")}`];
      return { image: `${repository}@${digest}`, sign: (manifest) => signImage(key, repository, digest, manifest) };
    },
  };
}
