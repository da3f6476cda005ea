import * as v from "valibot";
import { deleteTenantSecret } from "../../shared/access/tenant-secrets.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { PluginName, SecretName } from "../../shared/sdk/src/manifest.ts";

/** Deletes a secret, also one that the plugin no longer declares. Executions that begin afterwards do not get it. */
export default http({
  name: "secret-delete",
  summary: "Delete a secret of a plugin.",
  route: "DELETE /v1/plugins/{name}/secrets/{secret_name}",
  scope: "secrets:admin",
  liveKeyOnly: true,
  needs: ["db"],
  params: v.object({ name: PluginName, secret_name: SecretName }),
  replies: { 204: null },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    if (!(await deleteTenantSecret(db, caller.tenantId, caller, params.name, params.secret_name))) throw new Refusal("NOT_FOUND", { message: "There is no such secret." });
    return noContent();
  },
});
