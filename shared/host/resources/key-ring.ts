import type { Opener, Resources } from "../resources.ts";
import { keyRing } from "./secrets.ts";

export const opener: Opener<Resources["keyRing"]> = {
  variables: ["SECRETS_KEY", "SECRETS_KEY_ID", "SECRETS_OTHER_KEYS"],
  open: ({ config }) => keyRing(config),
};
