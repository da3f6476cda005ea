import { openTenantSecrets } from "../../access/tenant-secrets.ts";
import { required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["secrets"]> = { variables: ["SECRETS_KEY"], open: ({ config }) => openTenantSecrets(required(config, "SECRETS_KEY")) };
