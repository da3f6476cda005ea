import { openPluginClient } from "../../execution/plugin-client.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["plugins"]> = {
  variables: [],
  open({ onClose }) {
    const client = openPluginClient();
    onClose(() => client.close());
    return client;
  },
};
