import { openObjectStore } from "../../storage/object-store.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["storage"]> = {
  variables: ["S3_ENDPOINT", "S3_PUBLIC_ENDPOINT", "S3_BUCKET", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
  open({ config, onClose }) {
    const store = openObjectStore({
      endpoint: config.S3_ENDPOINT,
      publicEndpoint: config.S3_PUBLIC_ENDPOINT,
      bucket: config.S3_BUCKET,
      region: config.AWS_REGION,
      accessKeyId: config.AWS_ACCESS_KEY_ID,
      secretAccessKey: config.AWS_SECRET_ACCESS_KEY,
    });
    onClose(() => store.close());
    return store;
  },
};
