import * as v from "valibot";
import { SecretView, secretView } from "../../shared/access/secret-view.ts";
import { listTenantSecrets } from "../../shared/access/tenant-secrets.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { visiblePlugin } from "../../shared/registry/visible-plugin.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** Which secrets of a plugin are set, and when; never what they are. */
export default http({
  name: "secret-list",
  summary: "List the names of the secrets that are set for a plugin.",
  route: "GET /v1/plugins/{name}/secrets",
  scope: "secrets:admin",
  needs: ["db", "redis"],
  params: v.object({ name: PluginName }),
  replies: { 200: v.strictObject({ secrets: v.array(SecretView) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, request, db, redis }) {
    const secrets = await listTenantSecrets(db, caller.tenantId, params.name);
    // What was set stays visible when the plugin is retired, so that it can be deleted.
    if (secrets.length === 0) await visiblePlugin(db, redis, request.admission?.registryGeneration, caller.tenantId, params.name);
    return ok({ secrets: secrets.map(secretView) });
  },
});
