import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { findPluginConfig, PluginConfigView } from "../../shared/registry/plugin-config.ts";
import { visiblePlugin } from "../../shared/registry/visible-plugin.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** The tenant's settings for one plugin, as the next task will get them. */
export default http({
  name: "plugin-config-get",
  summary: "Read your configuration of a plugin.",
  route: "GET /v1/plugins/{name}/config",
  scope: "plugins:admin",
  needs: ["db", "redis"],
  params: v.object({ name: PluginName }),
  replies: { 200: PluginConfigView },
  documented: { replyHeaders: { ETag: "The configuration's version." } },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, request, db, redis }) {
    const entry = await visiblePlugin(db, redis, request.admission?.registryGeneration, caller.tenantId, params.name);
    const found = await findPluginConfig(db, caller.tenantId, entry.name);
    return ok(found, { etag: `"${found.version}"` });
  },
});
