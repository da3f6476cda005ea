import { uploadWaiting } from "../../shared/execution/waiting-artifacts.ts";
import { cron } from "../../shared/host/declare.ts";

/** Uploads the artifacts that the object store did not take when they were made. */
export default cron({
  name: "artifact-upload",
  summary: "Upload artifacts that the object store did not take at once.",
  schedule: "20 * * * * *",
  needs: ["platformDb", "storage", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },

  run: ({ platformDb, storage, telemetry, signal }) => uploadWaiting({ db: platformDb, storage, telemetry }, signal),
});
