import { createHash } from "node:crypto";
import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { ArtifactName } from "../../shared/storage/artifact-name.ts";
import { findArtifact } from "../../shared/tasks/read-tasks.ts";

/** Sends the caller to a presigned link, so that no artifact passes through the platform; only one that the store has not taken yet does. */
export default http({
  name: "artifact-download",
  summary: "Download an artifact: redirects to a link that works for five minutes, or answers with the file while the store is away.",
  route: "GET /v1/tasks/{task_id}/artifacts/{name}",
  scope: "tasks:read",
  needs: ["db", "storage"],
  params: v.object({ task_id: idParam("task"), name: ArtifactName }),
  query: v.strictObject({ step: v.optional(v.pipe(v.string(), v.maxLength(64), v.description("The step that stored it, where several stored one under this name."))) }),
  replies: { 200: null, 302: null },
  documented: { produces: "*/*", replyHeaders: { Location: "A link to the file that works for five minutes." } },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, query, caller, db, storage }) {
    const artifact = await findArtifact(db, caller.tenantId, params.task_id, params.name, query.step);
    if (!artifact) throw new Refusal("NOT_FOUND", { message: "There is no such artifact." });
    const { waiting_bytes: waiting, name, media_type } = artifact;
    if (waiting) {
      if (createHash("sha256").update(waiting).digest("hex") !== artifact.sha256) throw new Error("a waiting artifact has other bytes than were stored");
      // As the store would serve it: a download, which no browser runs.
      const headers = { "content-type": media_type, "content-disposition": `attachment; filename="${name}"`, "x-content-type-options": "nosniff", "cache-control": "no-store" };
      return { status: 200, raw: new Uint8Array(waiting), headers };
    }
    return { status: 302, headers: { location: await storage.link(artifact.storage_key, artifact.name, artifact.media_type) } };
  },
});
