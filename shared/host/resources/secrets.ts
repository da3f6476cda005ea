import { type KeyRing, openKeyRing, readRingKeys } from "../../access/key-ring.ts";
import { openTenantSecrets } from "../../access/tenant-secrets.ts";
import { type Config, required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export function keyRing(config: Config): KeyRing {
  return openKeyRing({ id: config.SECRETS_KEY_ID, key: required(config, "SECRETS_KEY") }, readRingKeys(config.SECRETS_OTHER_KEYS ?? "") ?? []);
}

export const opener: Opener<Resources["secrets"]> = {
  variables: ["SECRETS_KEY", "SECRETS_KEY_ID", "SECRETS_OTHER_KEYS"],
  open: ({ config }) => openTenantSecrets(keyRing(config)),
};
