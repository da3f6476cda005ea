import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { deregisterPlugin } from "../../shared/registry/register-plugin.ts";
import { PluginName, Semver } from "../../shared/sdk/src/manifest.ts";

/** Takes a plugin version out of routing. Tasks that were admitted to it still run. */
export default http({
  name: "registry-deregister",
  summary: "Take a plugin version out of routing.",
  route: "DELETE /internal/registry/{name}/{version}",
  scope: "service",
  needs: ["platformDb", "redis"],
  params: v.object({ name: PluginName, version: Semver }),
  replies: { 204: null },
  scale: { min: 0, max: 2, concurrency: 10 },

  async handle({ params, platformDb, redis }) {
    const generation = await deregisterPlugin(platformDb, params.name, params.version);
    if (generation === null) throw new Refusal("NOT_FOUND", { message: "There is no such plugin version." });
    await announceGeneration(redis, generation);
    return noContent();
  },
});
