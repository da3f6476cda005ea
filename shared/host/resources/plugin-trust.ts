import { admissionSigner } from "../../registry/admission-record.ts";
import { openImageRegistry } from "../../registry/image-registry.ts";
import { required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["pluginTrust"]> = {
  variables: ["ADMISSION_KEY", "IMAGE_REGISTRIES", "UNSIGNED_PLUGINS"],
  open({ config, onClose }) {
    const images = openImageRegistry(config.IMAGE_REGISTRIES);
    onClose(() => images.close());
    return { signer: admissionSigner(required(config, "ADMISSION_KEY")), images, allowsUnsigned: config.UNSIGNED_PLUGINS === "allow" };
  },
};
