import { openUpstream } from "../../models/upstream.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["upstream"]> = {
  variables: ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL"],
  open: ({ config, onClose }) => {
    const upstream = openUpstream({ apiKey: config.ANTHROPIC_API_KEY, baseUrl: config.ANTHROPIC_BASE_URL, model: config.ANTHROPIC_MODEL });
    onClose(() => upstream.close());
    return upstream;
  },
};
