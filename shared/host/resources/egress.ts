import { openEgress } from "../../egress/outbound-post.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["egress"]> = {
  variables: ["AAU_ALLOW_PRIVATE_WEBHOOKS"],
  open: ({ config, onClose }) => {
    const egress = openEgress({ allowPrivate: config.AAU_ALLOW_PRIVATE_WEBHOOKS });
    onClose(() => egress.close());
    return egress;
  },
};
