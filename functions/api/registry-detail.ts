import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { LifecycleView } from "../../shared/registry/plugin-lifecycle.ts";
import { findRegistered } from "../../shared/registry/registered-versions.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

const Version = v.strictObject({
  version: v.string(),
  status: v.string(),
  endpoint: v.string(),
  image: v.nullable(v.string()),
  signed_by: v.nullable(v.string()),
  health: v.string(),
  tasks_in_flight: v.number(),
});

/** What the registry knows of a plugin: where its versions run, who signed them, and how many tasks each still has to finish. */
export default http({
  name: "registry-detail",
  summary: "A plugin's versions, their signatures, and the tasks that they still have to finish.",
  route: "GET /internal/registry/{name}",
  scope: "service",
  needs: ["platformDb"],
  params: v.object({ name: PluginName }),
  replies: { 200: v.strictObject({ ...LifecycleView.entries, versions: v.array(Version) }) },
  documented: { refusals: ["NOT_FOUND"] },
  scale: { min: 0, max: 2, concurrency: 10 },

  async handle({ params, platformDb }) {
    const found = await findRegistered(platformDb, params.name);
    if (!found) throw new Refusal("NOT_FOUND", { message: "There is no such plugin." });
    const { name: plugin, ...rest } = found.plugin;
    return ok({ plugin, ...rest, versions: found.versions });
  },
});
